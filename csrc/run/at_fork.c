/*
 * at_fork.c - the order in which a fork stops things.
 *
 * While the core is still (fork/prepare.c), a thread that touches a page waits; so nobody may wait for that thread then. What the forking thread must have is
 * therefore taken before: stdio's list, which fork takes, then jemalloc's locks, then the stacks (who unmaps one waits for the fork, and might have a lock of
 * jemalloc's), then the table of addresses. In the child it is the other way round: the core goes on first, since the memory of all others is managed; it starts threads while those locks are held, so libc allocates from the private heap meanwhile.
 */
#define _GNU_SOURCE
#include "pool.h"
#include "run/board.h"
#include "run/sites.h"

#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

/* glibc's, for fork; a lock that the same thread may take again. */
void _IO_list_lock(void) __attribute__((weak));
void _IO_list_unlock(void) __attribute__((weak));
void _IO_list_resetlock(void) __attribute__((weak));

static void (*heap_prepare)(void), (*heap_in_parent)(void), (*heap_in_child)(void);

/* In jemalloc, in the place of pthread_atfork: it registers itself whenever the first block is asked for, which is no order to rely on. */
int run_heap_atfork(void (*prepare)(void), void (*in_parent)(void), void (*in_child)(void));
int run_heap_atfork(void (*prepare)(void), void (*in_parent)(void), void (*in_child)(void)) {
    heap_prepare = prepare;
    heap_in_parent = in_parent;
    heap_in_child = in_child;
    return 0;
}

/* Of this thread: it is in fork() below; and why (errno) the child cannot have the memory, which is then no child. */
static _Thread_local int called __attribute__((tls_model("initial-exec")));
static _Thread_local int refused __attribute__((tls_model("initial-exec")));

_Atomic uint64_t run_forks_refused;

static void note_refused(void) {
    run_forks_refused++;
    run_board_note_refused();
}

static sigset_t mask; /* of the thread that forks; under the lock of the table */

/* The program has a malloc of its own, in front of ours: what libc and the loader allocate by it lies in managed memory, and cannot be looked at in between. */
static const char ALONE[] =
    "this program brings its own malloc: it cannot fork under uswap run (posix_spawn and vfork work)";
static bool brings_malloc;

/* A program at fixed addresses that takes the address of a function in a library has an entry of that name without defining it: not in front of ours. */
static bool is_in_front(const char *name) {
    Dl_info first, ours;
    const ElfW(Sym) *symbol = NULL;
    void *found = dlsym(RTLD_DEFAULT, name);
    return found && dladdr1(found, &first, (void **)&symbol, RTLD_DL_SYMENT) && dladdr(&brings_malloc, &ours) &&
           first.dli_fbase != ours.dli_fbase && !(symbol && symbol->st_shndx == SHN_UNDEF);
}

static void prepare(void) {
    sigset_t before;
    if (brings_malloc) /* forkpty and the like, of libc's own */
        run_refuse(ALONE, NULL);
    signals_block(&before); /* a handler might want what is taken here */
    if (_IO_list_lock)
        _IO_list_lock();
    if (heap_prepare)
        heap_prepare();
    if (!run_stacks_hold())
        run_refuse("a fork cannot hold the stacks of the program's threads in memory",
                   "too much of the limit is locked");
    run_space_fork_begin();
    mask = before;
    run_inside = 1; /* the core may start threads, in the parent too */
    run_descriptors_raise();
}

static void in_parent(void) {
    sigset_t after = mask;
    run_inside = 0;
    refused = run_pool->fork_error;
    run_descriptors_restore();
    run_space_fork_end();
    run_stacks_let_go();
    if (heap_in_parent)
        heap_in_parent();
    if (_IO_list_unlock)
        _IO_list_unlock();
    signals_restore(&after);
}

static void in_child(void) {
    if (called && run_pool->fork_error)
        _exit(2);                        /* its parent knows */
    if (run_pool->owner_pid != getpid()) /* all that follows lies in memory that is not here */
        run_refuse("a child of a fork cannot have its parent's memory", run_pool->fork_reason);
    run_inside = 0;
    run_descriptors_restore();
    run_forks_refused = 0;
    run_threads_in_child();
    run_sites_forget_waits();
    run_space_fork_end();
    run_stacks_let_go();
    if (heap_in_child)
        heap_in_child();
    if (_IO_list_resetlock)
        _IO_list_resetlock();
    signals_restore(&mask);
}

/* Handlers before a fork run in the opposite order of their registration, those after it in order. Context: the core's are registered (a pool has been made). */
void run_at_fork(void) {
    brings_malloc = is_in_front("malloc");
    run_core_pthread_atfork(prepare, in_parent, in_child);
}

/* ---- a fork on a stack that is managed ---- */

/* For libc's fork, and the handlers of all libraries. */
#define STACK_BYTES ((size_t)1 << 20)

/* At the lower end of the stack that is forked on. */
typedef struct {
    ucontext_t managed, own;
    pid_t result;
} elsewhere;

static pid_t libc_fork(void) {
    static pid_t (*found)(void);
    if (!found)
        run_look_up("fork", &found);
    return found();
}

/* makecontext hands over ints. */
static void fork_there(unsigned high, unsigned low) {
    elsewhere *place = (void *)((uintptr_t)high << 32 | low);
    place->result = libc_fork();
}

static pid_t fork_elsewhere(void) {
    elsewhere *place = run_core_mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE,
                                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    if (place == MAP_FAILED)
        return -1;
    getcontext(&place->own);
    place->own.uc_stack.ss_sp = place + 1;
    place->own.uc_stack.ss_size = STACK_BYTES - sizeof *place;
    place->own.uc_link = &place->managed;
    uintptr_t address = (uintptr_t)place;
    makecontext(&place->own, (void (*)(void))fork_there, 2, (unsigned)(address >> 32), (unsigned)address);
    swapcontext(&place->managed, &place->own);
    pid_t result = place->result;
    run_core_munmap(place, STACK_BYTES);
    return result;
}

/* ---- a fork that there is no room for ---- */

/* A child that has died by itself for want of memory has never been: nor does the program hear of its death. */
void run_forget_child(pid_t child, const sigset_t *death) {
    siginfo_t told;
    static const struct timespec now;
    while (waitpid(child, NULL, __WALL) < 0 && errno == EINTR)
        continue;
    if (sigtimedwait(death, &told, &now) == SIGCHLD && told.si_pid != child && /* another's */
        syscall(SYS_rt_sigqueueinfo, getpid(), SIGCHLD, &told) != 0)
        kill(getpid(), SIGCHLD); /* only the main thread may say what the kernel has said */
}

/* Coroutines have stacks in ordinary memory. While the core is still, nobody could bring in a page of it. */
static pid_t fork_anywhere(void) {
    return run_space_has(__builtin_frame_address(0), 1) ? fork_elsewhere() : libc_fork();
}

EXPORT pid_t fork(void) {
    if (!run_pool)
        return libc_fork();
    if (brings_malloc) {
        run_say(ALONE, NULL);
        note_refused();
        errno = ENOMEM;
        return -1;
    }
    sigset_t death, before;
    sigemptyset(&death);
    sigaddset(&death, SIGCHLD);
    pthread_sigmask(SIG_BLOCK, &death, &before);
    called = 1;
    refused = 0;
    pid_t child = fork_anywhere();
    int error = errno;
    called = 0;
    if (child > 0 && refused) {
        run_forget_child(child, &death);
        note_refused();
        error = refused;
        child = -1;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = error;
    return child;
}

/* Without the handlers the child would have no memory. */
EXPORT pid_t _Fork(void) {
    return fork();
}
