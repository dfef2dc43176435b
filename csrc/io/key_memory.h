/*
 * key_memory.h - memory for secrets: locked where that is allowed, in no core dump, in no forked child, overwritten at the end.
 *
 * Owns: its mappings, and what libcrypto allocates with. The core's copy of libcrypto is its own, so that its allocator can be ours:
 * what it allocates between key_memory_use and the next call goes into key memory, everything else to malloc.
 */
#ifndef USWAP_IO_KEY_MEMORY_H
#define USWAP_IO_KEY_MEMORY_H

#include "base/base.h"

typedef struct {
    unsigned char *base;
    size_t bytes;
    size_t used;
    bool locked;
} key_memory;

/* Return: 0 or -errno. */
int key_memory_init(key_memory *memory, size_t bytes);
/* => all of it has been overwritten. */
void key_memory_fini(key_memory *memory);
/* Zeroed; not given back before the end. Return: NULL when it is used up. */
void *key_memory_take(key_memory *memory, size_t bytes);

#ifdef USWAP_HAVE_CRYPTO
/* Makes libcrypto allocate through the functions below. Before any other call of it. Return: 0 or -errno. */
int key_memory_adopt_libcrypto(void);
/* Where libcrypto allocates from now on; NULL: by malloc. Context: one thread at a time is in libcrypto's functions that allocate. */
void key_memory_use(key_memory *memory);
#endif

#endif
