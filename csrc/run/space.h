/*
 * space.h - what the files about managed addresses (space_*.c) share.
 */
#ifndef USWAP_RUN_SPACE_H
#define USWAP_RUN_SPACE_H

#include "base/lock.h"
#include "base/memory.h"
#include "run/ranges.h"
#include "run/run.h"

#define ACCESS (PROT_READ | PROT_WRITE | PROT_EXEC)
#define SPACE_MOST_BYTES ((size_t)1 << 40)

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

typedef struct {
    uintptr_t base, end;
    uint64_t region;
    range_table given;
} space;

extern space spaces[SPACES];
extern small_lock space_lock; /* the tables; nothing is waited for under it */

/* The space that has all of the bytes; NULL: none has. */
space *space_of(const void *address, size_t bytes);
/* So many bytes will find a place in swap, or are refused now: not when all is full. */
bool space_promise(size_t bytes);
void space_unpromise(size_t bytes);
/* Contents are thrown away, locked or not. Return: 0, or -1 with errno. */
int space_discard(const space *s, uintptr_t start, uintptr_t end);

/* Changes what access there is to addresses that had none, or are to have none: a core dump has what has some. (It would look for each page of a terabyte.) Return: 0,
 * or -1 with errno. */
int space_access(uintptr_t start, size_t bytes, int protection);

/* Return values of calls that fail. */
int space_fail(int error);
void *space_fail_map(int error);

#endif
