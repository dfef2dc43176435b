/*
 * memory.h - the core's own memory: anonymous mappings, never malloc (README, Threads), never inherited by a fork.
 */
#ifndef USWAP_BASE_MEMORY_H
#define USWAP_BASE_MEMORY_H

#include "base/base.h"

/* So many bytes, or the next more that are a multiple of a page's. */
static inline size_t whole_pages(size_t bytes) {
    return (bytes + PAGE_BYTES - 1) & ~(PAGE_BYTES - 1);
}

/* Zeroed, lazily touched address space without huge pages (metadata is counted by the 4 KiB page as it is touched).
 * Return: NULL where the kernel refuses. */
void *memory_map(size_t bytes);
void memory_unmap(void *address, size_t bytes);
/* The same memory, longer, with zeroes behind; perhaps elsewhere. Return: NULL where the kernel refuses: nothing has changed. */
void *memory_grow(void *address, size_t bytes, size_t new_bytes);
/* Gives the end back. */
void memory_cut(void *address, size_t bytes, size_t new_bytes);
/* So much of the addresses that the process may have at all (RLIMIT_AS); where it may have all, the most that there can be. For what is reserved and hardly used. */
size_t memory_address_share(unsigned part);
/* The same of what it may have that is private and can be written (RLIMIT_DATA). */
size_t memory_data_share(unsigned part);
/* Whether a forked child is to have a copy of it. */
void memory_inherit(void *address, size_t bytes, bool inherited);

#endif
