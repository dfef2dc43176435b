/*
 * region_still.c - a region that nobody refers to, for as long as it is being changed (README, Resizing a region).
 */
#include "pool.h"

void region_await_settled(region *r, region_resizing least) {
    uint32_t ticket = parking_ticket((const void *)&r->resizing);
    if (atomic_load(&r->resizing) >= (uint32_t)least)
        parking_wait((const void *)&r->resizing, ticket, 0);
}

static void set_resizing(region *r, region_resizing to) {
    atomic_store(&r->resizing, to);
    parking_wake((const void *)&r->resizing);
}

/* Only inline faults come by without the gate and without having looked at WAITS: either they see STILL, or we their reference. */
static bool is_still(uswap_pool *pool, region *r) {
    gate_close(&pool->gate);
    set_resizing(r, RESIZING_STILL);
    if (atomic_load(&r->references) == 0)
        return true;
    set_resizing(r, RESIZING_WAITS);
    gate_open(&pool->gate);
    return false;
}

bool region_still(uswap_pool *pool, region *r, uint64_t wait_ns) {
    uint64_t begin = clock_now_ns();
    set_resizing(r, RESIZING_WAITS);
    for (;;) {
        uint32_t ticket = parking_ticket((const void *)&r->references);
        if (is_still(pool, r))
            return true;
        uint64_t waited = clock_now_ns() - begin;
        if (wait_ns > 0 && waited >= wait_ns)
            break;
        if (atomic_load(&r->references) > 0)
            parking_wait((const void *)&r->references, ticket, wait_ns > 0 ? wait_ns - waited : 0);
    }
    set_resizing(r, RESIZING_NOT);
    return false;
}

void region_go_on(uswap_pool *pool, region *r) {
    gate_open(&pool->gate);
    set_resizing(r, RESIZING_NOT);
}
