/*
 * threads.c - a process whose main thread has ended by pthread_exit ends with the last thread of the program: the runtime's do not count.
 *
 * libc ends it when its own count of threads comes to nothing, which it never does beside the runtime's. So each of the program's threads is counted here. Also in
 * the child of a fork, where the only thread is one that was started, and comes to its end.
 */
#define _GNU_SOURCE
#include "run/run.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <threads.h>

/* What a thread of the program has to do. */
typedef struct {
    void *(*start)(void *);
    thrd_start_t start_c11;
    void *argument;
} work;

static int (*libc_pthread_create)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
static pthread_key_t ending;
static _Atomic long threads;

/* Destructors of other keys are to run before, those that they have set again, too: so this one comes up in the last round. */
static void end(void *round) {
    if ((uintptr_t)round < PTHREAD_DESTRUCTOR_ITERATIONS)
        pthread_setspecific(ending, (void *)((uintptr_t)round + 1));
    else if (atomic_fetch_sub(&threads, 1) == 1)
        exit(0);
}

/* Context: the main thread, before there is a pool. */
void run_threads_begin(void) {
    run_look_up("pthread_create", &libc_pthread_create);
    pthread_key_create(&ending, end);
    pthread_setspecific(ending, (void *)1);
    atomic_store(&threads, 1);
}

void run_threads_in_child(void) {
    atomic_store(&threads, 1);
}

long run_threads_count(void) {
    return atomic_load(&threads);
}

/* Counted before it runs: who has started it may end first. */
static void *begin(void *argument) {
    work w = *(work *)argument;
    run_private_free(argument);
    run_stacks_note_here();
    pthread_setspecific(ending, (void *)1);
    return w.start ? w.start(w.argument) : (void *)(intptr_t)w.start_c11(w.argument);
}

static int create(pthread_t *thread, const pthread_attr_t *attributes, work w) {
    work *given = run_private_malloc(sizeof w);
    if (!given || !run_stacks_note(attributes)) {
        run_private_free(given);
        return EAGAIN;
    }
    *given = w;
    atomic_fetch_add(&threads, 1);
    int error = libc_pthread_create(thread, attributes, begin, given);
    if (error) {
        atomic_fetch_sub(&threads, 1);
        run_private_free(given);
    }
    return error;
}

/* The runtime's own threads: linked with this name (setup.py). */
int run_core_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *),
                            void *argument);
int run_core_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *),
                            void *argument) {
    return libc_pthread_create(thread, attributes, start, argument);
}

EXPORT int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument) {
    if (!libc_pthread_create)
        run_look_up("pthread_create", &libc_pthread_create);
    if (!run_pool || run_inside)
        return libc_pthread_create(thread, attributes, start, argument);
    return create(thread, attributes, (work){.start = start, .argument = argument});
}

EXPORT int thrd_create(thrd_t *thread, thrd_start_t start, void *argument) {
    switch (create(thread, NULL, (work){.start_c11 = start, .argument = argument})) {
    case 0:
        return thrd_success;
    case ENOMEM:
        return thrd_nomem;
    default:
        return thrd_error;
    }
}
