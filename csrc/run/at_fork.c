/*
 * at_fork.c - the order in which a fork stops things.
 *
 * While the core is still (fork/prepare.c), a thread that touches a page waits; so nobody may wait for that thread then. What the forking thread must have is
 * therefore taken before: stdio's list, which fork takes, then jemalloc's locks, then the table of addresses. In the child it is the other way round: the core
 * goes on first, since the memory of all others is managed; it starts threads while those locks are held, so libc allocates from the private heap meanwhile.
 */
#define _GNU_SOURCE
#include "pool.h"
#include "run/sites.h"

#include <pthread.h>
#include <stddef.h>
#include <sys/mman.h>
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

static sigset_t mask; /* of the thread that forks; under the lock of the table */

static void prepare(void) {
    sigset_t before;
    signals_block(&before); /* a handler might want what is taken here */
    if (_IO_list_lock)
        _IO_list_lock();
    if (heap_prepare)
        heap_prepare();
    run_space_fork_begin();
    mask = before;
    run_inside = 1; /* the core may start threads, in the parent too */
}

static void in_parent(void) {
    sigset_t after = mask;
    run_inside = 0;
    run_space_fork_end();
    if (heap_in_parent)
        heap_in_parent();
    if (_IO_list_unlock)
        _IO_list_unlock();
    signals_restore(&after);
}

static void in_child(void) {
    if (run_pool->owner_pid != getpid()) /* all that follows lies in memory that is not here */
        run_refuse("a child of a fork cannot have its parent's memory", run_pool->fork_reason);
    run_inside = 0;
    run_threads_in_child();
    run_sites_forget_waits();
    run_space_fork_end();
    if (heap_in_child)
        heap_in_child();
    if (_IO_list_resetlock)
        _IO_list_resetlock();
    signals_restore(&mask);
}

/* Handlers before a fork run in the opposite order of their registration, those after it in order. Context: the core's are registered (a pool has been made). */
void run_at_fork(void) {
    pthread_atfork(prepare, in_parent, in_child);
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

/* Coroutines have stacks in ordinary memory. While the core is still, nobody could bring in a page of it. */
EXPORT pid_t fork(void) {
    return run_space_has(__builtin_frame_address(0), 1) ? fork_elsewhere() : libc_fork();
}

/* Without the handlers the child would have no memory. */
EXPORT pid_t _Fork(void) {
    return fork();
}
