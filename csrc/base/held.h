/*
 * held.h - what the calling thread holds of gates and page locks, noted in debug builds alone: their order (I21) is checked as they are taken.
 *
 * Owns: the one thread-local word of the core. It is of the initial-exec kind, so that no thread's first touch of it allocates.
 */
#ifndef USWAP_BASE_HELD_H
#define USWAP_BASE_HELD_H

#include "base/base.h"

#ifdef USWAP_DEBUG

/* A gate is about to be entered, or closed. */
void held_before_gate(void);
void held_gate_entered(void);
void held_gate_left(void);
/* The lock of a page is about to be waited for. */
void held_before_page(void);
void held_page_locked(void);
void held_page_unlocked(void);

#else

static inline void held_before_gate(void) {}
static inline void held_gate_entered(void) {}
static inline void held_gate_left(void) {}
static inline void held_before_page(void) {}
static inline void held_page_locked(void) {}
static inline void held_page_unlocked(void) {}

#endif

#endif
