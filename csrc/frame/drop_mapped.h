/*
 * drop_mapped.h - frames dropped where they are mapped, many pages by one system call.
 *
 * For pages whose contents are in their slots and cannot change meanwhile (sealed ones: README, Sealed pages). One page after the other
 * would interrupt every processor that runs the process once a page; process_madvise takes a list, and does so once.
 */
#ifndef USWAP_FRAME_DROP_MAPPED_H
#define USWAP_FRAME_DROP_MAPPED_H

#include "frame/transport.h"

#define DROP_MAPPED_MAX 64

/* Opens what it needs. Without it (older kernels, no /proc, a seccomp filter) the pool seals no pages. */
void drop_mapped_init(uswap_pool *pool);
void drop_mapped_fini(uswap_pool *pool);
/* In a forked child: the parent's descriptors are closed. */
void drop_mapped_in_child(const uswap_pool *pool);
bool drop_mapped_works(const uswap_pool *pool);

/* Drops count (at most DROP_MAPPED_MAX) pages, wherever they lie. result[i]: OUT_DROPPED, OUT_ABSENT or OUT_BUSY.
 * seen: they were there just now. Context: the pages are locked and write-protected. */
void drop_mapped(uswap_pool *pool, unsigned char *const *address, uint32_t count, bool seen, out_result *result);

/* Copies such pages, count of them, at most DROP_MAPPED_MAX. Return: how many, from the first on; the next one could not be read. */
uint32_t copy_mapped(const uswap_pool *pool, unsigned char *const *address, void *const *to, uint32_t count);

#endif
