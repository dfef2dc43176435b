/* Preloaded: counts what the core must not do while it moves pages. Its threads and its signal handler have every signal blocked, so a
 * call with SIGUSR2 blocked is one of the core's. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>

static int watching;
static unsigned long allocations, locks, specifics;

void watch_calls(int on) {
    __atomic_store_n(&watching, on, __ATOMIC_SEQ_CST);
}

unsigned long allocations_seen(void) {
    return allocations;
}

unsigned long locks_seen(void) {
    return locks;
}

unsigned long specifics_seen(void) {
    return specifics;
}

static void note(unsigned long *counter) {
    sigset_t mask;
    if (__atomic_load_n(&watching, __ATOMIC_SEQ_CST) && pthread_sigmask(SIG_SETMASK, NULL, &mask) == 0 &&
        sigismember(&mask, SIGUSR2))
        __atomic_fetch_add(counter, 1, __ATOMIC_SEQ_CST);
}

extern void *__libc_malloc(size_t bytes);
extern void *__libc_calloc(size_t count, size_t bytes);
extern void *__libc_realloc(void *address, size_t bytes);
extern void __libc_free(void *address);

void *malloc(size_t bytes) {
    note(&allocations);
    return __libc_malloc(bytes);
}

void *calloc(size_t count, size_t bytes) {
    note(&allocations);
    return __libc_calloc(count, bytes);
}

void *realloc(void *address, size_t bytes) {
    note(&allocations);
    return __libc_realloc(address, bytes);
}

void free(void *address) {
    note(&allocations);
    __libc_free(address);
}

/* The next definition, found once; a race finds the same. */
#define WATCHED(result, name, type, counter)                                                                           \
    result name(type argument) {                                                                                       \
        static result (*next)(type);                                                                                   \
        if (!next)                                                                                                     \
            next = (result(*)(type))dlsym(RTLD_NEXT, #name);                                                           \
        note(&counter);                                                                                                \
        return next(argument);                                                                                         \
    }

WATCHED(int, pthread_mutex_lock, pthread_mutex_t *, locks)
WATCHED(int, pthread_rwlock_rdlock, pthread_rwlock_t *, locks)
WATCHED(int, pthread_rwlock_wrlock, pthread_rwlock_t *, locks)
WATCHED(void *, pthread_getspecific, pthread_key_t, specifics)
