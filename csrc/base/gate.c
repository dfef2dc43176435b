#include "base/gate.h"

#include "base/held.h"
#include "base/lock.h"

static void leave(gate *g) {
    uint32_t before = atomic_fetch_sub(&g->inside, 1);
    DEBUG_INVARIANT(I21, before > 0);
    if (before == 1 && unlikely(atomic_load(&g->closed)))
        parking_wake((const void *)&g->inside);
}

void gate_enter(gate *g) {
    held_before_gate();
    for (;;) {
        atomic_fetch_add(&g->inside, 1);
        if (likely(!atomic_load(&g->closed))) {
            held_gate_entered();
            return;
        }
        leave(g);
        uint32_t ticket = parking_ticket((const void *)&g->closed);
        if (atomic_load(&g->closed))
            parking_wait((const void *)&g->closed, ticket, 0);
    }
}

void gate_leave(gate *g) {
    held_gate_left();
    leave(g);
}

void gate_close(gate *g) {
    held_before_gate();
    atomic_store(&g->closed, 1);
    for (;;) {
        uint32_t ticket = parking_ticket((const void *)&g->inside);
        if (atomic_load(&g->inside) == 0)
            return;
        parking_wait((const void *)&g->inside, ticket, 0);
    }
}

void gate_open(gate *g) {
    atomic_store(&g->closed, 0);
    parking_wake((const void *)&g->closed);
}
