/*
 * heap_fork.c - all heaps there are, and what a fork does to them.
 *
 * Nobody is inside a heap while its process forks: a lock of the small allocator that another thread holds would be held for ever in the child. The
 * handlers are registered after the core's own (fork.c), so they run before those when a fork is prepared, while faults are still served, and
 * after those in the child, when it is known whether the pool has become the child's.
 */
#define _GNU_SOURCE
#include "heap/heap.h"

#include <errno.h>
#include <pthread.h>

static small_lock lock; /* held over a fork, and while a heap comes or goes */
static uswap_heap *heaps[HEAPS_MAX];

static void prepare(void) {
    small_lock_acquire(&lock);
    for (int i = 0; i < HEAPS_MAX; i++)
        if (heaps[i])
            gate_close(&heaps[i]->gate);
}

static void in_parent(void) {
    for (int i = 0; i < HEAPS_MAX; i++)
        if (heaps[i])
            gate_open(&heaps[i]->gate);
    small_lock_release(&lock);
}

/* The one thread of the child. Those that waited at a gate are not in this process. */
static void in_child(void) {
    for (int i = 0; i < HEAPS_MAX; i++) {
        if (!heaps[i])
            continue;
        heaps[i]->gate = (gate){0};
        if (heaps[i]->pool && uswap_pool_check_process(heaps[i]->pool, NULL) != USWAP_OK)
            atomic_store(&heaps[i]->lost, 1);
    }
    lock = (small_lock){0};
}

static void register_once(void) {
    pthread_atfork(prepare, in_parent, in_child);
}

void heap_hold_forks(void) {
    small_lock_acquire(&lock);
}

void heap_allow_forks(void) {
    small_lock_release(&lock);
}

int heap_list_add(uswap_heap *h) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    int status = -ENFILE;
    pthread_once(&once, register_once);
    small_lock_acquire(&lock);
    for (int i = 0; i < HEAPS_MAX && status != 0; i++)
        if (!heaps[i]) {
            heaps[i] = h;
            status = 0;
        }
    small_lock_release(&lock);
    return status;
}

void heap_list_remove(uswap_heap *h) {
    for (int i = 0; i < HEAPS_MAX; i++)
        if (heaps[i] == h)
            heaps[i] = NULL;
}
