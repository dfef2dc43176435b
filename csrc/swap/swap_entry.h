/*
 * swap_entry.h - {area, slot}: the name of a page's contents, wherever they lie.
 *
 * A one-field struct, so that the compiler tells it from a page, a frame and a count. The value 0 names nothing: slot 0 of
 * every area is its header.
 */
#ifndef USWAP_SWAP_SWAP_ENTRY_H
#define USWAP_SWAP_SWAP_ENTRY_H

#include "base/base.h"

#define SWAP_ENTRY_BITS 40 /* 5 bits of area, 35 of slot: 32 areas of 128 TiB */
#define SWAP_SLOT_BITS 35
#define SWAP_AREAS_MAX 32

typedef struct {
    uint64_t value;
} swap_entry;

static const swap_entry SWAP_ENTRY_NONE = {0};

static inline swap_entry swap_entry_make(unsigned area, uint64_t slot) {
    return (swap_entry){((uint64_t)area << SWAP_SLOT_BITS) | slot};
}

static inline unsigned swap_entry_area(swap_entry entry) {
    return (unsigned)(entry.value >> SWAP_SLOT_BITS);
}

static inline uint64_t swap_entry_slot(swap_entry entry) {
    return entry.value & (((uint64_t)1 << SWAP_SLOT_BITS) - 1);
}

static inline bool swap_entry_is_none(swap_entry entry) {
    return entry.value == 0;
}

static inline bool swap_entry_equal(swap_entry a, swap_entry b) {
    return a.value == b.value;
}

/* The entry n slots further in the same area. */
static inline swap_entry swap_entry_after(swap_entry entry, uint64_t n) {
    return (swap_entry){entry.value + n};
}

#endif
