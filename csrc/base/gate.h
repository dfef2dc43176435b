/*
 * gate.h - a way to stop everybody between two steps.
 *
 * Whoever changes pages, slots or frames is inside the pool's gate. uswap_pool_check closes it and then sees a state that holds
 * still: I/O may be in flight, but nobody acts on its end. So nobody inside waits for what another one inside must do; page
 * locks and one's own I/O excepted.
 */
#ifndef USWAP_BASE_GATE_H
#define USWAP_BASE_GATE_H

#include "base/base.h"

typedef struct {
    _Atomic uint32_t inside;
    _Atomic uint32_t closed;
} gate;

void gate_enter(gate *g);
void gate_leave(gate *g);
/* => nobody is inside, and nobody gets in until gate_open. Context: outside; one closer at a time. */
void gate_close(gate *g);
void gate_open(gate *g);

#endif
