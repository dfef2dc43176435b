/*
 * pool_list.c - the pools of this process, for those who come from outside: signal handlers, and the child of a fork.
 *
 * A handler that serves a page may be the last one in its pool when the pool is destroyed: pool_list_remove waits for it. The counts lie
 * here and not in the pools, so that they can be asked while a pool goes.
 */
#include "pool.h"

uswap_pool *_Atomic pool_list[POOLS_MAX];
static _Atomic uint32_t users[POOLS_MAX];

uswap_pool *pool_enter(int index) {
    if (!atomic_load(&pool_list[index]))
        return NULL;
    atomic_fetch_add(&users[index],
                     1); /* first the count, then the look: pool_list_remove does it the other way round */
    uswap_pool *pool = atomic_load(&pool_list[index]);
    if (!pool)
        pool_leave(index);
    return pool;
}

void pool_leave(int index) {
    if (atomic_fetch_sub(&users[index], 1) == 1 && !atomic_load(&pool_list[index]))
        parking_wake((const void *)&users[index]);
}

void pool_list_in_child(void) {
    for (int i = 0; i < POOLS_MAX; i++)
        atomic_store(&users[i], 0);
}

int pool_list_add(uswap_pool *pool) {
    fork_watch();
    for (int i = 0; i < POOLS_MAX; i++) {
        uswap_pool *nothing = NULL;
        if (atomic_compare_exchange_strong(&pool_list[i], &nothing, pool))
            return 0;
    }
    return -1;
}

void pool_list_remove(uswap_pool *pool) {
    for (int i = 0; i < POOLS_MAX; i++) {
        uswap_pool *expected = pool;
        if (!atomic_compare_exchange_strong(&pool_list[i], &expected, NULL))
            continue;
        for (;;) {
            uint32_t ticket = parking_ticket((const void *)&users[i]);
            if (atomic_load(&users[i]) == 0)
                return;
            parking_wait((const void *)&users[i], ticket, 0);
        }
    }
}
