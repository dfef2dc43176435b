/*
 * ranges.h - which addresses of a space have been given out, and with what protection: what the kernel's list of mappings is for other memory.
 *
 * Context of all functions: the lock of the space.
 */
#ifndef USWAP_RUN_RANGES_H
#define USWAP_RUN_RANGES_H

#include "base/base.h"

typedef struct {
    uintptr_t start, end; /* whole pages */
    uint8_t protection;
    uint8_t foreign;  /* 1: something else of the program's is mapped there (a file, shared memory) */
    uint8_t sparse;   /* 1: MAP_NORESERVE: may be writable and not promised */
    uint8_t promised; /* 1: has been writable: there is space on the disk for it, whatever its protection is by now */
} range;

typedef struct {
    range *all; /* in order, no two of them overlap, neighbours differ */
    size_t count, capacity;
    size_t promised; /* bytes of those that are promised */
} range_table;

/* The first range that ends behind address: it is there, or the next one. Return: count if there is none. */
size_t ranges_find(const range_table *table, uintptr_t address);
/* start to end are r->start to r->end from now on. Return: false: no memory for the table; nothing has changed. */
bool ranges_put(range_table *table, const range *r);
/* Nothing is given out there any more. Return: as ranges_put. */
bool ranges_cut(range_table *table, uintptr_t start, uintptr_t end);
/* Where what is given out from start on ends: at end, or at the first hole. */
uintptr_t ranges_covered(const range_table *table, uintptr_t start, uintptr_t end);
/* Whether that can be said of some of it: something else of the program's is mapped there; there is no access to it. */
bool ranges_have(const range_table *table, uintptr_t start, uintptr_t end, bool (*asked)(const range *));
bool range_is_foreign(const range *r);
bool range_is_bare(const range *r);
/* Whether all of it is given out. */
bool ranges_cover(const range_table *table, uintptr_t start, uintptr_t end);
/* So many free bytes between first and last, at a multiple of alignment. Return: 0 if there are none. */
uintptr_t ranges_gap(const range_table *table, uintptr_t first, uintptr_t last, size_t bytes, size_t alignment);

#endif
