/*
 * run.h - an unmodified program under a limit: what the files of run/ know of each other (README, Unmodified programs).
 *
 * They are linked with the core into libuswap-run.so, which `uswap run` has the loader put in front of a program. Here libc's memory calls are ours:
 * the core's own and jemalloc's go through core_calls.c.
 */
#ifndef USWAP_RUN_RUN_H
#define USWAP_RUN_RUN_H

#include "base/base.h"
#include "base/lock.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/types.h>

/* Mappings from this size on are managed. */
#define RUN_LEAST_BYTES ((size_t)64 << 10)

/* ---- settings.c: what `uswap run` has put into the environment ---- */

typedef struct {
    uint64_t limit_bytes; /* 0: this process is not to be limited */
    uint64_t swap_bytes;  /* the swap area grows no larger; 0: 90 % of the free disk */
    char swap_folder[512];
    char pool_folder[512]; /* of the named pool whose limit it is; "": the limit is this process's alone */
    int report;            /* 1: say at exit what it came to */
} run_settings;

extern run_settings run_set;
/* => run_set. Return: NULL, or what is wrong, in a few words. */
const char *run_settings_read(void);
/* "512 MiB" and the like, into text. */
const char *run_size_text(uint64_t bytes, char text[32]);

/* ---- start.c ---- */

/* The pool of this process; NULL: none (yet). */
extern uswap_pool *run_pool;
/* One line on standard error. */
void run_say(const char *what, const char *why);
/* Ends the process with one line on standard error and status 2. */
_Noreturn void run_refuse(const char *what, const char *why);

/* ---- join.c, keeper.c, pool_lock.c: one limit for all processes of the program ---- */

/* A pool for this process, in the named pool of the settings, which is made if nobody is in it. Ends the process if that cannot be. Context: no other threads. */
uswap_pool *run_join(uswap_pool *(*make)(void));
/* A process that keeps the named pool from vanishing, until nobody else has been in it for a while; it is nobody's child. => there is the pool. lock: of the pool; the keeper
 * has it, too, until the pool can be found. Return: 0 or a uswap_status; USWAP_E_BUSY: it has not said anything for long, and has the lock. Context: no other threads. */
int run_keeper_start(int lock, uswap_error *err);

/* Nobody waits longer for who makes the pool: he is stopped. */
#define RUN_PATIENCE_NS UINT64_C(10000000000)
/* => nobody else makes the pool, joins it by its name in Python, or cleans up after it; nor in a child that has the descriptor. Return: a descriptor, or a uswap_status. */
int run_pool_lock(uint64_t wait_ns, uswap_error *err);
/* => the file is there no longer than the pool's folder. */
void run_pool_unlock(int lock);
/* The pool's folder has gone: so does the file, if nobody has it locked. */
void run_pool_lock_forget(void);

/* ---- core_calls.c ---- */

/* Not 0 while this thread is in the runtime's own business: what libc allocates for it comes from the private heap. */
extern _Thread_local int run_inside __attribute__((tls_model("initial-exec")));

void run_map_directly(int on);
/* => *function: libc's own of a name that is ours here. Whoever looks first: it is the same. */
void run_look_up(const char *name, void *function);
/* A function of libc's whose allocations lie in the private heap. */
#define RUN_PRIVATE_CALL(type, name, parameters, arguments)                                                            \
    EXPORT type name parameters {                                                                                      \
        static type(*libc) parameters;                                                                                 \
        if (!libc)                                                                                                     \
            run_look_up(#name, &libc);                                                                                 \
        run_inside++;                                                                                                  \
        type result = libc arguments;                                                                                  \
        run_inside--;                                                                                                  \
        return result;                                                                                                 \
    }
void *run_core_mmap(void *address, size_t bytes, int protection, int flags, int fd, off_t offset);
int run_core_munmap(void *address, size_t bytes);
int run_core_mprotect(void *address, size_t bytes, int protection);
int run_core_madvise(void *address, size_t bytes, int advice);
void *run_core_mremap(void *address, size_t bytes, size_t new_bytes, int flags, ...);
int run_core_mlock(const void *address, size_t bytes);
int run_core_munlock(const void *address, size_t bytes);
int run_core_mincore(void *address, size_t bytes, unsigned char *pages);
int run_core_open(const char *path, int flags, ...);
int run_core_close(int fd);
int run_core_fstat(int fd, struct stat *status);

/* ---- private_heap.c: memory that no fault can wait for ---- */

void *run_private_malloc(size_t bytes);
void *run_private_calloc(size_t count, size_t bytes);
void run_private_free(void *block);
void *run_private_realloc(void *block, size_t bytes);
void *run_private_memalign(size_t alignment, size_t bytes);
bool run_private_has(const void *block);
size_t run_private_size(const void *block);

/* ---- descriptors.c: the runtime's own, which the program neither sees nor closes ---- */

/* The same file under a high number, noted as the runtime's. Return: that number; fd, if there is none. */
int run_descriptor_keep(int fd);
void run_descriptor_forget(int fd);
/* For a descriptor that has been given such a number: it is the runtime's. */
void run_descriptor_note(int fd);
int run_descriptor_least(void);
/* In between nobody closes or chooses numbers: around what makes a descriptor and keeps it. Context: no signal interrupts; short. */
void run_descriptors_begin(sigset_t *before);
void run_descriptors_end(const sigset_t *before);
/* Context: no handler of a fork has been registered. */
void run_descriptors_at_fork(void);
/* The runtime's, too, for a process that is none of the program's. */
void run_descriptors_close_all_but(int one, int other);
/* A call that makes one; kept. */
#define KEPT(call)                                                                                                     \
    ({                                                                                                                 \
        sigset_t kept_mask_;                                                                                           \
        run_descriptors_begin(&kept_mask_);                                                                            \
        int kept_fd_ = run_descriptor_keep((int)(call));                                                               \
        run_descriptors_end(&kept_mask_);                                                                              \
        kept_fd_;                                                                                                      \
    })
/* Between these two the runtime finds numbers for its descriptors although the program has set itself a low limit. Context: one thread at a time: at the start, or the
 * one that forks. */
void run_descriptors_raise(void);
void run_descriptors_restore(void);

/* ---- space.c: the addresses that managed memory has ---- */

/* => both spaces are regions of run_pool. */
int run_spaces_open(uswap_error *err);

typedef enum { SPACE_MAPS = 0, SPACE_HEAP = 1, SPACES = 2 } run_space;

/* Whether any of these bytes lie in managed addresses. */
bool run_space_has(const void *address, size_t bytes);
/* Whether all of these are given out, and nothing else is mapped there. */
bool run_space_managed(uintptr_t start, uintptr_t end);
/* A call of those below, which no handler of the program's interrupts: one that maps memory, too, would wait for the thread that it has interrupted. */
#define MANAGED(call)                                                                                                  \
    ({                                                                                                                 \
        sigset_t mask_;                                                                                                \
        signals_block_but(SIGBUS, &mask_);                                                                             \
        __typeof__(call) result_ = (call);                                                                             \
        signals_restore(&mask_);                                                                                       \
        result_;                                                                                                       \
    })
/* All of these: as the calls without run_space_, for managed memory. => errno is set where they fail. */
void *run_space_map(run_space space, size_t bytes, int protection, int flags, const void *hint);
void *run_space_map_fixed(void *address, size_t bytes, int protection, int flags, int fd, off_t offset);
int run_space_unmap(void *address, size_t bytes);
int run_space_protect(void *address, size_t bytes, int protection);
int run_space_advise(void *address, size_t bytes, int advice);
int run_space_lock(const void *address, size_t bytes, bool locked);
/* Whether the page there is, as a mapping is as a whole. */
bool run_space_is_locked(const void *address);
/* Like run_space_lock, but counted: pages that are pinned twice stay until they have been let go twice. Context: start is that of a page. Return: whether they are. */
bool run_space_pin(uintptr_t start, uintptr_t end);
void run_space_unpin(uintptr_t start, uintptr_t end);
int run_space_in_core(void *address, size_t bytes, unsigned char *pages);
void *run_space_remap(void *address, size_t bytes, size_t new_bytes, int flags, void *target);
/* Nobody is inside while a process forks. */
void run_space_fork_begin(void);
void run_space_fork_end(void);

/* ---- stacks.c: stacks of threads that the program has allocated itself ---- */

/* A thread is about to be made with such attributes (NULL: libc's own). Return: false: no memory to note it. */
bool run_stacks_note(const pthread_attr_t *attributes);
/* This thread has begun: now it is known how much of its stack libc has. */
void run_stacks_note_here(void);
/* During a fork what libc has there is in memory, and pinned. Return: false: there is no room for it. Context: space_lock is all that this thread takes then. */
bool run_stacks_hold(void);
void run_stacks_let_go(void);
/* Waits for a fork that holds them. */
void run_stacks_await(void);

/* ---- at_fork.c: the order in which a fork stops things ---- */

void run_at_fork(void);
/* Waits for a child to end, of which the program is to know nothing: nor of its death. Context: SIGCHLD, which death has, is blocked in this thread. */
void run_forget_child(pid_t child, const sigset_t *death);
/* How often there was no room for a child. */
extern _Atomic uint64_t run_forks_refused;

/* ---- fork_handlers.c ---- */

/* Until then the program's are held back: the core's and ours are to be the first. */
void run_fork_handlers_release(void);
int run_core_pthread_atfork(void (*prepare)(void), void (*in_parent)(void), void (*in_child)(void));

/* ---- libc_state.c: what of libc's own lies in the private heap ---- */

/* Where the loader's code lies. */
extern uintptr_t run_loader_base, run_loader_bytes;
void run_libc_begin(void);

/* ---- threads.c: the program's threads, counted ---- */

void run_threads_begin(void);
void run_threads_in_child(void);
long run_threads_count(void);

/* ---- proc_stat.c ---- */

/* Return: a stream of what the program is to see in that file; NULL: what there is. errno is not looked at. */
FILE *run_open_stat(const char *path, const char *mode);

/* ---- exec.c ---- */

/* How the loader is told of us, but for the folder. */
#define RUN_LIBRARY "libuswap-run.so"

void run_exec_begin(void);
/* An environment with what this one lacks of ours, from the private heap. Return: NULL: it lacks nothing, or there is no memory. */
char **run_exec_completed(char *const *environment);
bool run_exec_is_ours(const char *entry);

/* ---- report.c ---- */

void run_report_begin(void);

#endif
