/*
 * reborn.c - the child of a fork goes on: everything that a pool has, made anew around the words about pages and slots that it has copied.
 */
#define _GNU_SOURCE
#include "fork/fork.h"

#include "base/failpoint.h"
#include "base/memory.h"
#include "base/proc_maps.h"
#include "base/status.h"
#include "fault/fault_inline.h"
#include "fault/fault_thread.h"
#include "fault/signal.h"
#include "fault/uffd.h"
#include "frame/drop_mapped.h"
#include "reclaim/reclaimer.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* What the parent swaps to may be no file that another could lie beside. */
#define OTHER_FOLDER "/var/tmp"

static int fail(fork_plan *plan, int status, const char *what) {
    if (status != 0)
        snprintf(plan->reason, sizeof plan->reason, "%s: %s", what, error_text(-status));
    return status;
}

/* ---- what was the parent's ---- */

static void close_one(int *fd) {
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* Its memory was not inherited, so it is only forgotten. */
static void forget_parents(fork_plan *plan) {
    uswap_pool *pool = plan->pool;
    int inline_uffd = atomic_load(&pool->inlines.uffd);
    drop_mapped_fini(pool);
    for (int i = 0; i < FORK_RINGS_MAX; i++)
        close_one(&plan->rings[i]);
    close_one(&pool->faults.wake_fd);
    close_one(&pool->uffd);
    close_one(&pool->self_mem_fd);
    close_one(&inline_uffd);
    memset(&pool->frames, 0, sizeof pool->frames);
    memset(&pool->faults, 0, sizeof pool->faults);
    memset(&pool->inlines, 0, sizeof pool->inlines);
    memset(&pool->native, 0, sizeof pool->native);
    memset(&pool->watch, 0, sizeof pool->watch);
    memset(&pool->events, 0, sizeof pool->events);
    memset(&pool->trace, 0, sizeof pool->trace);
    memset(&pool->shared_policy, 0, sizeof pool->shared_policy);
    pool->uffd = pool->self_mem_fd = pool->faults.wake_fd = -1;
    atomic_store(&pool->inlines.uffd, -1);
}

/* Nobody waits for anything, and nothing is under way. */
static void reset(uswap_pool *pool) {
    pool->leave_lock = pool->api_lock = pool->reclaim_lock = pool->context_lock = pool->direct_turn = (small_lock){0};
    pool->gate = (gate){0};
    pool->regions.lock = (small_lock){0};
    atomic_store(&pool->frame_waiters, 0);
    atomic_store(&pool->writes_in_flight, 0);
    atomic_store(&pool->reads_in_flight, 0);
    atomic_store(&pool->evictors, 0);
    atomic_store(&pool->direct_in_vain, 0);
    atomic_store(&pool->slots_exhausted, 0);
    atomic_store(&pool->exhausted_round_ns, 0);
    atomic_store(&pool->errors_at_retry, 0);
    atomic_store(&pool->events_waiting, 0);
    atomic_store(&pool->near_distance, 0);
    atomic_store(&pool->near_refaults, 0);
    atomic_store(&pool->lendable_slots, 0);
    pool->announced = 0;
    pool->announcing = pool->announced_ring = false;
    pool->block_reads = NULL;
    pool->bounce_frames = 0;
}

/* What has happened to it so far has happened to its parent. */
static void reset_counters(uswap_pool *pool) {
    pool_counters before = *pool->counters, *counters = &pool->own_counters;
    if (pool->counters == counters || !(pool->counters = pool_counters_elsewhere()))
        pool->counters = counters;
    counters = pool->counters;
    memset(counters, 0, sizeof *counters);
    atomic_store(&counters->mapped_pages, before.mapped_pages);
    atomic_store(&counters->locked_pages, before.locked_pages);
    atomic_store(&counters->pinned_pages, before.pinned_pages);
    atomic_store(&counters->poisoned_pages, before.poisoned_pages);
}

/* ---- regions ---- */

/* Unmapped by its owner, or about to be: nobody will touch it here. */
static void empty_region(uswap_pool *pool, region *r) {
    FOR_TOUCHED(r, page) {
        uint64_t word = page_load(&r->object.words[page]);
        STAT_SUB(pool, mapped_pages, page_state_of(word) == PAGE_RESIDENT);
        STAT_SUB(pool, locked_pages, (word & PAGE_MLOCKED) != 0);
        STAT_SUB(pool, pinned_pages, page_pins_of(word) != 0);
        STAT_SUB(pool, poisoned_pages, page_state_of(word) == PAGE_POISONED);
        atomic_store(&r->object.words[page], 0);
    }
    atomic_store(&r->mapped_pages, 0);
    atomic_store(&r->swapped_pages, 0);
    atomic_store(&r->locked_pages, 0);
    atomic_store(&r->poisoned_pages, 0);
}

/* A page that is in both processes: counted here too. */
static void count_stuck(uswap_pool *pool, region *r, size_t page) {
    page_word *word = &r->object.words[page];
    frame_charge_over(pool, 1);
    if (page_is_sealed(page_load(word))) /* the write-protection was not inherited */
        page_set_bits(word, PAGE_SEALED, 0);
    if (!page_is_held(page_load(word)))
        ring_push_page(pool, &pool->ring, stay_of(r, page));
}

static void count_region(uswap_pool *pool, region *r) {
    for (size_t chunk = 0; chunk <= (r->object.pages - 1) / PAGE_WORDS_PER_CHUNK; chunk++)
        if (atomic_load(&r->object.touched[chunk]))
            frame_charge_metadata(pool, 1);
    FOR_TOUCHED(r, page) {
        if (page_state_of(page_load(&r->object.words[page])) == PAGE_RESIDENT)
            count_stuck(pool, r, page);
    }
}

/* Part by part: something else may be mapped among the region's addresses (run/space.c), which is not to be watched. */
static int watch_parts(const region *r) {
    proc_maps in;
    mapped_range range;
    uintptr_t first = (uintptr_t)r->base, end = first + (r->object.pages << PAGE_SHIFT);
    int status = proc_maps_open(&in);
    while (status == 0 && proc_maps_next(&in, &range) && range.start < end) {
        uintptr_t start = MAX_OF(range.start, first), stop = MIN_OF(range.end, end);
        if (start < stop)
            status = uffd_register(r->uffd, (void *)start, stop - start, UFFD_MISSING | UFFD_WP);
        if (status == -EINVAL)
            status = 0;
    }
    proc_maps_close(&in);
    return status;
}

static int watch_region(uswap_pool *pool, region *r, bool served_inline) {
    int status = served_inline ? fault_inline_prepare(pool) : 0;
    if (status == 0)
        status = FAILPOINT(fork_mapped);
    if (status != 0)
        return status;
    r->uffd = served_inline ? atomic_load(&pool->inlines.uffd) : pool->uffd;
    memory_inherit(r->base, r->room_pages << PAGE_SHIFT, false);
    status = uffd_register(r->uffd, r->base, r->object.pages << PAGE_SHIFT, UFFD_MISSING | UFFD_WP);
    return status == -EINVAL ? watch_parts(r) : status;
}

/* inline_uffd: the number that the parent's had. */
static int take_regions(uswap_pool *pool, int inline_uffd) {
    int status = 0;
    uint32_t at = 0;
    for (region *r; status == 0 && (r = fork_next_region(pool, &at));) {
        atomic_store(&r->references, 0);
        atomic_store(&r->movers, 0);
        atomic_store(&r->resizing, RESIZING_NOT);
        if (!atomic_load(&r->quiesced))
            status = watch_region(pool, r, inline_uffd >= 0 && r->uffd == inline_uffd);
        count_region(pool, r);
    }
    return status;
}

/* ---- swap ---- */

/* The folder in which the file of a descriptor lies, or lay. */
static bool folder_of(int fd, char *folder, size_t bytes) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, folder, bytes - 1);
    if (length <= 0)
        return false;
    folder[length] = '\0';
    char *last = strrchr(folder, '/');
    if (!last || last == folder)
        return false;
    *last = '\0';
    return true;
}

/* An area of its own, where its parent has one, and as large as those may be. */
static int open_area(uswap_pool *pool, uswap_error *err) {
    uint32_t index = atomic_load(&pool->area_count);
    char folder[sizeof pool->areas[0].path] = "";
    uint64_t slots = pool_promised_slots(pool, atomic_load(&pool->reserved_slots)) + CLUSTER_SLOTS + 1, theirs = 0;
    for (uint32_t i = 0; i < index; i++) {
        const swap_area *area = &pool->areas[i];
        if (swap_area_is_closed(area))
            continue;
        theirs = MAX_OF(theirs, area->total_slots);
        if (folder[0] == '\0' && !(area->notes & USWAP_AREA_BLOCK_DEVICE))
            folder_of(area->fd, folder, sizeof folder);
    }
    int status = FAILPOINT(fork_area);
    if (status != 0)
        return error_set(err, USWAP_E_OS, -status, "open", folder, "%s", error_text(-status));
    status = swap_area_open(&pool->areas[index], &pool->seg, index, folder[0] ? folder : OTHER_FOLDER, true,
                            MAX_OF(slots, theirs) << PAGE_SHIFT, 0, err);
    if (status != 0)
        return status;
    atomic_store(&pool->area_count, index + 1);
    uint64_t missing = pool_make_room(pool, pool_promised_slots(pool, atomic_load(&pool->reserved_slots)), err);
    return missing == 0 || pool->options.overcommit ? 0 : USWAP_E_NO_MEMORY;
}

/* ---- all of it ---- */

static int make_core(fork_plan *plan) {
    uswap_pool *pool = plan->pool;
    uswap_error err = {.status = USWAP_OK};
    int status = 0;
    if (pool_open_uffd(pool, &err) != 0) {
        snprintf(plan->reason, sizeof plan->reason, "%.200s", err.detail);
        return err.os_errno ? -err.os_errno : -EPERM;
    }
    status = pool_make_frames(pool);
    if (status == 0) {
        drop_mapped_init(pool);
        status = pool_codec_make_frames(pool, pool->options.limit_bytes >> PAGE_SHIFT);
    }
    return fail(plan, status == 0 ? pool_make_contexts(pool) : status, "its threads have no memory or rings");
}

static int take_swap(fork_plan *plan) {
    uswap_error err = {.status = USWAP_OK};
    int status = open_area(plan->pool, &err);
    if (status != 0)
        snprintf(plan->reason, sizeof plan->reason, "it has no place to swap to: %.200s", err.detail);
    return status;
}

static int start(fork_plan *plan) {
    uswap_pool *pool = plan->pool;
    int status = pool_start_threads(pool);
    if (status == 0)
        status = family_start(&plan->place);
    if (status == 0 && plan->place.pool.in)
        status = group_enter_born(plan->place.pool.in);
    if (status != 0) {
        reclaimer_stop(pool);
        fault_thread_stop(pool);
        watch_stop(pool);
    }
    return fail(plan, status, "its threads could not be started");
}

static int take_group(fork_plan *plan) {
    if (!plan->place.pool.in)
        return 0;
    int status = group_inherit(plan->pool);
    if (status == 0)
        plan->place.pool.in = atomic_load(&plan->pool->group);
    return status;
}

int fork_rebirth(fork_plan *plan) {
    uswap_pool *pool = plan->pool;
    int inline_uffd = atomic_load(&pool->inlines.uffd);
    reset_counters(pool);
    family_in_child(pool, &plan->place);
    int status = family_claim(&plan->place);
    FAILPOINT(fork_claimed);
    if (status != 0)
        return fail(plan, status, "its parent died before it could go on");
    forget_parents(plan);
    status = fail(plan, take_group(plan), "it has no memory for what it knows of others");
    if (status != 0)
        return status;
    reset(pool);
    pool->options.limit_bytes =
        plan->place.chunks * commons_head(&family_limited_by(&plan->place)->in->commons)->chunk_frames << PAGE_SHIFT;
    uint32_t at = 0;
    for (region *r; (r = fork_next_region(pool, &at));)
        if (atomic_load(&r->quiesced))
            empty_region(pool, r);
    status = fail(plan, fork_own_slots(pool), "it has no memory for its slots");
    if (status == 0)
        status = make_core(plan);
    if (status == 0)
        status = fail(plan, take_regions(pool, inline_uffd), "its regions cannot be watched");
    if (status == 0)
        status = take_swap(plan);
    if (status == 0)
        status = start(plan);
    if (status != 0)
        return status;
    if (inline_uffd >= 0)
        signal_arm_in_child(SIGBUS);
    pool->owner_pid = getpid();
    FAILPOINT(fork_ready);
    return 0;
}
