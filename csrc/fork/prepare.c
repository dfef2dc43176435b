/*
 * prepare.c - what the forking thread does before and after a fork.
 */
#define _GNU_SOURCE
#include "fork/fork.h"

#include "base/failpoint.h"
#include "base/memory.h"
#include "base/status.h"
#include "shared/group_info.h"
#include "swap/holders.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

/* ---- the place ---- */

/* What a child has counted before it touches anything: its copy of the words about pages and slots. */
static uint64_t inherited_frames(const uswap_pool *pool) {
    uint64_t metadata = atomic_load(&pool->frames.budget->metadata_pages);
    return metadata > METADATA_FREE_PAGES ? metadata - METADATA_FREE_PAGES : 0;
}

/* As fork(2) says it: EAGAIN where another try may succeed. */
static int fork_errno(int status) {
    return status == -EUSERS || status == -EAGAIN ? EAGAIN : ENOMEM;
}

static const char *why_no_place(int status) {
    switch (status) {
    case -EUSERS:
        return "there are too many processes of one pool";
    case -ENOMEM:
        return "the limit is too low for one process more";
    case -ENXIO:
        return "it has left the named pool whose limit it had";
    case -EAGAIN:
        return "other processes of the pool did not give back enough of the limit in time";
    default:
        return error_text(-status);
    }
}

static uint64_t touched_pages(uswap_pool *pool) {
    uint64_t pages = 0;
    uint32_t at = 0;
    for (region *r; (r = fork_next_region(pool, &at));)
        for (size_t page = 0; (page = region_next_touched(r, page)) < r->object.pages;
             page = (page / PAGE_WORDS_PER_CHUNK + 1) * PAGE_WORDS_PER_CHUNK)
            pages += MIN_OF(PAGE_WORDS_PER_CHUNK, r->object.pages - page);
    return pages;
}

/* Whatever one side writes anew while the other has the old takes another slot. Return: false: there is no room for that. */
static bool make_room(uswap_pool *pool) {
    uint64_t lent = 0, before = atomic_load(&pool->lendable_slots);
    for (uint32_t i = 0; i < atomic_load(&pool->area_count); i++)
        lent += atomic_load(&pool->areas[i].lent_slots);
    atomic_store(&pool->lendable_slots, touched_pages(pool) + lent);
    uint64_t promised = pool_promised_slots(pool, atomic_load(&pool->reserved_slots));
    if (pool_make_room(pool, promised, NULL) == 0 || pool->options.overcommit)
        return true;
    atomic_store(&pool->lendable_slots, before);
    return false;
}

void fork_place(fork_plan *plan) {
    uswap_pool *pool = plan->pool;
    const char *reason = NULL;
    if (!pool->options.snapshots)
        reason = "it was made with snapshots=False";
    else if (atomic_load(&pool->enters_group))
        reason = "it was just joining a named pool";
    else if (atomic_load(&pool->area_count) == SWAP_AREAS_MAX)
        reason = "it has no room for one swap area more";
    int status = reason ? 0 : family_take_place(pool, inherited_frames(pool), &plan->place);
    if (status != 0)
        reason = why_no_place(status);
    plan->placed = !reason;
    pool->fork_error = plan->placed ? 0 : fork_errno(status);
    snprintf(plan->reason, sizeof plan->reason, "%s", reason ? reason : "");
    FAILPOINT(fork_placed);
}

/* ---- still ---- */

static void collect_rings(fork_plan *plan) {
    const uswap_pool *pool = plan->pool;
    int count = 0;
    plan->rings[count++] = io_descriptor(&pool->fault_context.io);
    plan->rings[count++] = io_descriptor(&pool->reclaim_context.io);
    for (int i = 0; i < API_CONTEXTS; i++)
        plan->rings[count++] = io_descriptor(&pool->api_contexts[i].io);
    for (int i = 0; pool->inlines.contexts && i < INLINE_CONTEXTS; i++)
        plan->rings[count++] = io_descriptor(&pool->inlines.contexts[i].io);
    if (plan->place.pool.in) {
        plan->rings[count++] = io_descriptor(&plan->place.pool.in->read_io);
        plan->rings[count++] = io_descriptor(&plan->place.pool.in->write_io);
    }
    while (count < FORK_RINGS_MAX)
        plan->rings[count++] = -1;
}

/* The child's bits. */
static void lend(fork_plan *plan) {
    uswap_pool *pool = plan->pool;
    uint32_t at = 0;
    holders_begin(pool, plan->place.kin.child.value);
    for (region *r; (r = fork_next_region(pool, &at));)
        FOR_TOUCHED(r, page) {
            swap_entry entry = page_entry_of(page_load(&r->object.words[page]));
            if (!swap_entry_is_none(entry))
                holders_add(pool, entry, plan->place.kin.child.value);
        }
}

static void inherit_table(const family_seat *seat, bool inherited) {
    if (seat->in)
        memory_inherit(seat->in->commons.base, seat->in->commons.bytes, inherited);
}

/* Memory that the child is to have a copy of, or, of regions, all that is in it. */
static void let_inherit(const fork_plan *plan, bool inherited) {
    uswap_pool *pool = plan->pool;
    uint32_t at = 0;
    for (region *r; (r = fork_next_region(pool, &at));) {
        const memory_object *object = &r->object;
        if (!atomic_load(&r->quiesced)) /* else those addresses may be somebody else's by now */
            memory_inherit(r->base, r->room_pages << PAGE_SHIFT, inherited);
        memory_inherit((void *)object->words, object->capacity * sizeof(page_word), inherited);
        memory_inherit((void *)object->touched, region_touched_bytes(object->capacity), inherited);
        memory_inherit((void *)object->huge, region_huge_bytes(object->capacity), inherited);
    }
    memory_inherit((void *)pool->regions.by_address, REGIONS_MAX * sizeof *pool->regions.by_address, inherited);
    memory_inherit((void *)pool->fills.touched, fill_table_touched_bytes(), inherited);
    for (uint32_t i = 0; i < atomic_load(&pool->area_count); i++)
        memory_inherit((void *)pool->areas[i].slots_touched, swap_area_touched_bytes(&pool->areas[i]), inherited);
    codec_inherit(&pool->codec, inherited);
    memory_inherit(pool->seg.base, pool->seg.reserved_bytes, inherited);
    inherit_table(&plan->place.kin, inherited);
    inherit_table(&plan->place.pool, inherited);
}

/* Return: NULL; or why the child cannot go on. */
static const char *make_ready(fork_plan *plan) {
    uswap_pool *pool = plan->pool;
    bool unsafe;
    plan->stuck = fork_evict_all(pool, &unsafe);
    FAILPOINT(fork_quiet);
    if (unsafe)
        return "pages could not be written";
    if (!family_endow(&plan->place))
        return "its pages could not leave: they are locked, or there is no swap space for them";
    lend(plan);
    if (FAILPOINT(fork_lent) != 0)
        return "it was not to be";
    return NULL;
}

void fork_quiesce(fork_plan *plan) {
    uswap_pool *pool = plan->pool;
    if (!plan->placed)
        return;
    small_lock_acquire(&pool->leave_lock);
    small_lock_acquire(&pool->api_lock);
    const char *reason = NULL;
    if (holders_make(pool) != 0)
        reason = "there is no address space for the words of shared slots";
    else if (!make_room(pool))
        reason = "there is no swap space for what both sides write anew";
    gate_close(&pool->gate);
    plan->quiet = true;
    if (!reason)
        reason = make_ready(plan);
    plan->ready = !reason;
    pool->fork_error = plan->ready ? 0 : ENOMEM;
    snprintf(plan->reason, sizeof plan->reason, "%s", reason ? reason : "");
    collect_rings(plan);
    if (plan->ready)
        let_inherit(plan, true);
}

void fork_resume(fork_plan *plan) {
    uswap_pool *pool = plan->pool;
    FAILPOINT(fork_parent);
    if (plan->ready)
        let_inherit(plan, false);
    if (plan->quiet) {
        gate_open(&pool->gate);
        small_lock_release(&pool->api_lock);
        small_lock_release(&pool->leave_lock);
    }
    if (plan->ready)
        family_in_parent(&plan->place);
    else if (plan->placed)
        family_give_up(&plan->place);
    plan->quiet = plan->placed = plan->ready = false;
}
