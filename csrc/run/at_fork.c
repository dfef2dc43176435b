/*
 * at_fork.c - the order in which a fork stops things.
 *
 * While the core is still (fork/prepare.c), a thread that touches a page waits; so nobody may wait for that thread then. What the forking thread must have is
 * therefore taken before: stdio's list, which fork takes, then jemalloc's locks, then the table of addresses. In the child it is the other way round: the core
 * goes on first, since the memory of all others is managed; it starts threads while those locks are held, so libc allocates from the private heap meanwhile.
 */
#define _GNU_SOURCE
#include "run/sites.h"

#include <pthread.h>
#include <stddef.h>

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

static void prepare(void) {
    if (_IO_list_lock)
        _IO_list_lock();
    if (heap_prepare)
        heap_prepare();
    run_space_fork_begin();
    run_inside = 1; /* the core may start threads, in the parent too */
}

static void in_parent(void) {
    run_inside = 0;
    run_space_fork_end();
    if (heap_in_parent)
        heap_in_parent();
    if (_IO_list_unlock)
        _IO_list_unlock();
}

static void in_child(void) {
    run_inside = 0;
    run_sites_forget_waits();
    run_space_fork_end();
    if (heap_in_child)
        heap_in_child();
    if (_IO_list_resetlock)
        _IO_list_resetlock();
}

/* Handlers before a fork run in the opposite order of their registration, those after it in order. Context: the core's are registered (a pool has been made). */
void run_at_fork(void) {
    pthread_atfork(prepare, in_parent, in_child);
}
