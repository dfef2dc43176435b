/*
 * cluster_ahead.h - which slots will be wanted next: groups of pages that were evicted together and now come back together.
 *
 * Owns: the last few groups of neighbouring slots that faults came from. Pages that a program uses together leave together and lie
 * together, whatever their addresses; when several of a group come back, the others are likely to follow, and after them the group
 * beside it. Pure arithmetic, as read_ahead.h.
 */
#ifndef USWAP_SWAP_CLUSTER_AHEAD_H
#define USWAP_SWAP_CLUSTER_AHEAD_H

#include "base/base.h"
#include "base/lock.h"
#include "swap/swap_entry.h"

/* As many as leave together (reclaim/batch.h). */
#define GROUP_SLOTS 64
#define CLUSTER_AHEAD_GROUPS 16

typedef struct {
    uint64_t number; /* entry / GROUP_SLOTS; 0: none */
    uint32_t faults; /* since it was first seen */
    uint32_t used;   /* clock of the last of them */
    bool read;       /* its pages have been asked for */
} slot_group;

typedef struct {
    small_lock lock;
    uint32_t clock;
    slot_group group[CLUSTER_AHEAD_GROUPS];
} cluster_ahead;

/* A fault was served from this slot. alone: it lies near no stream of addresses; only such faults tell of a group. The others make the groups
 * of earlier faults older. Return: whether the whole group around it is worth reading now. */
bool cluster_ahead_fault(cluster_ahead *ahead, swap_entry entry, bool alone);

#endif
