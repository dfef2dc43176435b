#include "base/held.h"

#ifdef USWAP_DEBUG

static __thread struct { uint32_t gates, pages; } held __attribute__((tls_model("initial-exec")));

void held_before_gate(void) {
    INVARIANT(I21, held.gates == 0);
    INVARIANT(I21, held.pages == 0);
}

void held_gate_entered(void) {
    held.gates++;
}

void held_gate_left(void) {
    INVARIANT(I21, held.gates == 1);
    INVARIANT(I21, held.pages == 0);
    held.gates--;
}

void held_before_page(void) {
    INVARIANT(I21, held.pages == 0);
}

void held_page_locked(void) {
    held.pages++;
}

void held_page_unlocked(void) {
    INVARIANT(I21, held.pages > 0);
    held.pages--;
}

#endif
