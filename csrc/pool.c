#define _GNU_SOURCE
#include "pool.h"

#include "base/memory.h"
#include "base/status.h"
#include "fault/fault_inline.h"
#include "fault/fault_thread.h"
#include "fault/signal.h"
#include "fault/uffd.h"
#include "frame/drop_mapped.h"
#include "reclaim/page_out.h"
#include "reclaim/reclaimer.h"
#include "shared/family.h"
#include "swap/holders.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- entry and exit of API functions ---- */

_Static_assert(sizeof(sigset_t) <= sizeof((api_guard *)0)->saved_mask, "a signal mask fits");

int api_enter(uswap_pool *pool, api_guard *guard, uswap_error *err) {
    if (!pool)
        return error_set(err, USWAP_E_CLOSED, 0, "pool", NULL, "the pool is closed");
    if (pool->owner_pid != getpid())
        return error_set(err, USWAP_E_FORKED, 0, "pool", NULL,
                         "this pool belongs to process %d, of which this one (%d) is a fork%s%s: make a pool in the "
                         "child, or start it by spawn or forkserver",
                         (int)pool->owner_pid, (int)getpid(),
                         pool->fork_reason[0] ? " without its memory, because " : "", pool->fork_reason);
    signals_block_but(SIGBUS, guard->saved_mask);
    if (pool->inlines.uffd >= 0)
        signal_arm(SIGBUS);
    return 0;
}

bool pool_lock_api(uswap_pool *pool, uint64_t within_ns) {
    if (within_ns == 0) {
        small_lock_acquire(&pool->api_lock);
        return true;
    }
    for (uint64_t end = clock_now_ns() + within_ns; !small_lock_try(&pool->api_lock); sched_yield())
        if (clock_now_ns() > end)
            return false;
    return true;
}

EXPORT int uswap_pool_check_process(uswap_pool *pool, uswap_error *err) {
    api_guard guard;
    int status = api_enter(pool, &guard, err);
    if (status == 0)
        api_leave(&guard);
    return status;
}

void api_leave(const api_guard *guard) {
    signals_restore(guard->saved_mask);
}

void metadata_touch(uswap_pool *pool, _Atomic uint8_t *flags, size_t first, size_t last) {
    uint64_t fresh = 0;
    for (size_t i = first; i <= last; i++)
        if (!atomic_load_explicit(&flags[i], memory_order_relaxed) && !atomic_exchange(&flags[i], 1))
            fresh++;
    if (fresh > 0)
        frame_charge_metadata(pool, fresh);
}

void metadata_touch_slot(uswap_pool *pool, swap_entry entry) {
    size_t chunk = swap_entry_slot(entry) * sizeof(swap_slot) / PAGE_BYTES;
    metadata_touch(pool, pool->areas[swap_entry_area(entry)].slots_touched, chunk, chunk);
}

/* ---- create ---- */

/* The one table of defaults. Windows and batches: benchmarks/bench_patterns.py. */
EXPORT void uswap_options_init(uswap_options *options) {
    *options = (uswap_options){
        .limit_bytes = 0,
        .transport = USWAP_TRANSPORT_AUTO,
        .io_kind = USWAP_IO_AUTO,
        .recycle = 0,
        .overcommit = 0,
        .fault_around_pages = 512,
        .read_ahead_pages = 2048,
        .reclaim_batch_pages = 64,
        .background = 1,
        .verify = 1,
        .fault_mode = USWAP_FAULTS_DEFAULT,
        .write_ahead = 1,
        .io_depth = IO_REQUESTS,
        .awake = 1,
        .snapshots = 1,
        .encrypt = 0,
    };
}

EXPORT uint64_t uswap_minimum_limit_bytes(void) {
    return (uint64_t)(RESERVE_FRAMES + LEAST_FAULT_FRAMES) << PAGE_SHIFT;
}

/* With the bounce frames that a pool of that limit would have. */
static uint64_t minimum_for(const uswap_options *options, uint64_t limit_bytes) {
    return uswap_minimum_limit_bytes() + (pool_codec_frames(options->encrypt, limit_bytes >> PAGE_SHIFT) << PAGE_SHIFT);
}

static int check_options(const uswap_options *options, uswap_error *err) {
    if (sysconf(_SC_PAGESIZE) != (long)PAGE_BYTES)
        return error_set(err, USWAP_E_UNSUPPORTED, 0, "pool", NULL,
                         "this machine has pages of %ld bytes; uswap needs 4096", sysconf(_SC_PAGESIZE));
    if (options->limit_bytes < minimum_for(options, options->limit_bytes))
        return error_set(
            err, USWAP_E_LIMIT, 0, "pool", NULL,
            "a limit of %llu bytes is below the minimum of %llu: threads could not make progress with less",
            (unsigned long long)options->limit_bytes, (unsigned long long)minimum_for(options, 0));
    if (options->transport > USWAP_TRANSPORT_COPY || options->io_kind > USWAP_IO_SYNC ||
        options->fault_mode > USWAP_FAULTS_INLINE)
        return error_set(err, USWAP_E_INVALID, 0, "pool", NULL, "no such transport, I/O backend or fault mode");
    if (options->fault_around_pages < 1 || options->reclaim_batch_pages < 1 || options->reclaim_batch_pages > 65536 ||
        options->read_ahead_pages > 65536 || options->fault_around_pages > 65536)
        return error_set(err, USWAP_E_INVALID, 0, "pool", NULL,
                         "fault_around_pages and reclaim_batch_pages are 1 to 65536, read_ahead_pages is 0 to 65536");
    if (options->io_depth < 1 || options->io_depth > IO_REQUESTS)
        return error_set(err, USWAP_E_INVALID, 0, "pool", NULL, "io_depth is 1 to %d requests", IO_REQUESTS);
    return 0;
}

/* Of an arena: a slot word has 30 bits for a frame of one of four. */
#define PLACES_MAX ((UINT32_C(1) << 28) - BLOCK_PAGES)

/* Of the addresses that the process may have, what all arenas take together at most is an eighth. */
#define ADDRESS_PART (8 * ARENA_KINDS)

static uint32_t machine_pages(void) {
    long pages = sysconf(_SC_PHYS_PAGES);
    size_t all = pages > 0 ? (size_t)pages : (size_t)1 << 22;
    size_t share = MIN_OF(memory_address_share(ADDRESS_PART), memory_data_share(ADDRESS_PART)) >> PAGE_SHIFT;
    return (uint32_t)MIN_OF(MIN_OF(all, (size_t)PLACES_MAX), share);
}

static size_t arena_bytes(const uswap_pool *pool) {
    return (size_t)pool->frames.arenas[0].places << PAGE_SHIFT;
}

static size_t block_reads_bytes(const uswap_pool *pool) {
    return 2 * (size_t)pool->frames.arenas[0].places / BLOCK_PAGES * sizeof(block_read);
}

/* MOVE demands it of a destination. Blocks are filled in memory that the kernel may map by huge pages; registered too, for
 * write-protection that is never set: khugepaged leaves such memory alone where pages are missing, else it would make frames that
 * nobody has counted (K18). */
static int register_arenas(uswap_pool *pool) {
    arena *arenas = pool->frames.arenas;
    int status = uffd_register(pool->uffd, arenas[ARENA_CATCH].base, arena_bytes(pool), UFFD_MISSING);
    if (status == 0)
        status = uffd_register(pool->uffd, arenas[ARENA_BLOCK_CATCH].base, arena_bytes(pool), UFFD_MISSING);
    if (status == 0)
        status = uffd_register(pool->uffd, arenas[ARENA_BLOCK_FILL].base, arena_bytes(pool), UFFD_WP);
    if (status == 0)
        madvise(arenas[ARENA_BLOCK_FILL].base, arena_bytes(pool), MADV_HUGEPAGE); /* refused: ordinary pages then */
    return status;
}

int pool_make_frames(uswap_pool *pool) {
    uint64_t limit_frames = pool->options.limit_bytes >> PAGE_SHIFT;
    /* As many places as the machine has pages: a limit raised later needs no new arena. Only address space until used. */
    uint32_t places = MAX_OF(machine_pages(), (uint32_t)MIN_OF(2 * limit_frames, (uint64_t)PLACES_MAX));
    int status = frame_pool_init(&pool->frames, &segment_head(&pool->seg)->budget, places, pool->options.recycle);
    if (status == 0)
        status = ring_init(&pool->ring, pool_ring_capacity(limit_frames));
    if (status == 0)
        status = ring_init(&pool->ring_marked, RING_ENTRIES_LEAST); /* these grow as they are used */
    if (status == 0)
        status = ring_init(&pool->inactive, RING_ENTRIES_LEAST);
    if (status == 0)
        status = ring_init(&pool->inactive_marked, RING_ENTRIES_LEAST);
    if (status == 0)
        status = orders_init(&pool->orders);
    if (status == 0) {
        pool->block_reads = memory_map(block_reads_bytes(pool));
        status = pool->block_reads ? register_arenas(pool) : -ENOMEM;
    }
    frame_pool_set_limit(&pool->frames, limit_frames, pool->options.background);
    return status;
}

static int make_memory(uswap_pool *pool) {
    int status = segment_create(&pool->seg);
    if (status != 0)
        return status;
    pool->hash_seed = segment_head(&pool->seg)->hash_seed[0];
    status = region_table_init(&pool->regions);
    if (status == 0)
        status = fill_table_init(&pool->fills, &pool->seg);
    return status == 0 ? pool_make_frames(pool) : status;
}

int pool_make_contexts(uswap_pool *pool) {
    int status = context_init(&pool->fault_context, pool, ACTOR_DIRECT);
    if (status == 0)
        status = context_init(&pool->reclaim_context, pool, ACTOR_NATIVE);
    for (int i = 0; i < API_CONTEXTS && status == 0; i++)
        status = context_init(&pool->api_contexts[i], pool, ACTOR_API);
    return status;
}

static void release(uswap_pool *pool) {
    pool_list_remove(pool);
    for (int i = 0; i < API_CONTEXTS; i++)
        context_fini(&pool->api_contexts[i]);
    context_fini(&pool->reclaim_context);
    context_fini(&pool->fault_context);
    fault_inline_fini(pool);
    pool_codec_fini(pool);
    for (uint32_t i = 0; i < atomic_load(&pool->area_count); i++)
        swap_area_close(&pool->areas[i]);
    holders_fini(pool);
    for (int i = 0; i < ARENA_KINDS; i++)
        if (i != ARENA_FILL && pool->frames.arenas[i].base)
            uffd_unregister(pool->uffd, pool->frames.arenas[i].base, arena_bytes(pool));
    if (pool->uffd >= 0)
        close(pool->uffd);
    if (pool->self_mem_fd >= 0)
        close(pool->self_mem_fd);
    drop_mapped_fini(pool);
    reclaim_ring *rings[] = {&pool->ring, &pool->ring_marked, &pool->inactive, &pool->inactive_marked};
    for (int i = 0; i < (int)(sizeof rings / sizeof *rings); i++)
        if (rings[i]->entries)
            ring_fini(rings[i]);
    orders_fini(&pool->orders);
    events_fini(pool);
    shared_policy_fini(pool);
    trace_fini(pool);
    region_table_fini(&pool->regions);
    fill_table_fini(&pool->fills);
    group_release(pool);
    memory_unmap(pool->block_reads, block_reads_bytes(pool));
    frame_pool_fini(&pool->frames);
    segment_destroy(&pool->seg);
    memory_unmap(pool, sizeof *pool);
}

static int codec_failure(uswap_error *err, int status) {
    if (status == -ENOSYS)
        return error_set(err, USWAP_E_UNSUPPORTED, 0, "encrypt", NULL,
                         "swap cannot be encrypted: uswap was built without libcrypto: install libssl-dev (Debian, "
                         "Ubuntu), which has its static library, and build uswap again");
    return error_set(err, status == -ENOMEM ? USWAP_E_NO_MEMORY : USWAP_E_OS, -status, "encrypt", NULL,
                     "cannot make the keys of the pool: %s", error_text(-status));
}

static int os_failure(uswap_error *err, const char *operation, int status) {
    return error_set(err, status == -ENOMEM ? USWAP_E_NO_MEMORY : USWAP_E_OS, -status, operation, NULL,
                     "cannot make the pool: %s: %s", operation, error_text(-status));
}

int pool_start_threads(uswap_pool *pool) {
    uint64_t rings = ring_pages(pool->ring.capacity) + ring_pages(pool->ring_marked.capacity) +
                     ring_pages(pool->inactive.capacity) + ring_pages(pool->inactive_marked.capacity);
    frame_charge_metadata(pool, rings + bytes_to_pages(orders_bytes(&pool->orders)));
    int status = fault_thread_start(pool);
    if (status == 0)
        status = reclaimer_start(pool);
    return status == 0 ? watch_start(pool) : status;
}

static int start(uswap_pool *pool, uswap_error *err) {
    int status = pool_open_uffd(pool, err);
    if (status != 0)
        return status;
    status = make_memory(pool);
    if (status != 0)
        return os_failure(err, "mmap", status);
    drop_mapped_init(pool);
    status = pool_codec_init(pool);
    if (status != 0)
        return codec_failure(err, status);
    status = pool_make_contexts(pool);
    if (status != 0)
        return pool->options.io_kind == USWAP_IO_URING
                   ? error_set(err, USWAP_E_UNSUPPORTED, -status, "io_uring_setup", NULL,
                               "io_uring cannot be used here (%s): use io=\"auto\"", error_text(-status))
                   : os_failure(err, "io_queue_init", status);
    if (pool_list_add(pool) != 0)
        return error_set(err, USWAP_E_NO_MEMORY, 0, "pool", NULL, "a process may have at most %d pools", POOLS_MAX);
    status = pool_start_threads(pool);
    return status == 0 ? 0 : os_failure(err, "pthread_create", status);
}

pool_counters *(*pool_counters_elsewhere)(void);

EXPORT int uswap_pool_create(const uswap_options *options, uswap_pool **out, uswap_error *err) {
    int status = check_options(options, err);
    if (status != 0)
        return status;
    uswap_pool *pool = memory_map(sizeof *pool);
    if (!pool)
        return os_failure(err, "mmap", -ENOMEM);
    madvise(pool, sizeof *pool, MADV_DOFORK); /* a forked child must see whose it is (fork.c) */
    awake_init();
    pool->owner_pid = getpid();
    pool->options = *options;
    pool->counters = pool_counters_elsewhere ? pool_counters_elsewhere() : NULL;
    if (!pool->counters)
        pool->counters = &pool->own_counters;
    pool->uffd = pool->self_mem_fd = pool->self_pid_fd = pool->pagemap_fd = pool->faults.wake_fd = -1;
    atomic_store(&pool->inlines.uffd, -1);
    api_guard guard;
    signals_block(guard.saved_mask); /* the threads inherit the mask */
    fork_hold();
    status = start(pool, err);
    if (status != 0) {
        reclaimer_stop(pool);
        fault_thread_stop(pool);
        watch_stop(pool);
        release(pool);
    } else {
        *out = pool;
    }
    fork_allow();
    api_leave(&guard);
    return status;
}

EXPORT int uswap_pool_destroy(uswap_pool *pool, uswap_error *err) {
    api_guard guard;
    int status = api_enter(pool, &guard, err);
    if (status != 0)
        return status;
    fork_hold();
    uint32_t live = pool->regions.live;
    if (live > 0)
        status = error_set(err, USWAP_E_BUSY, 0, "pool", NULL, "%u regions of the pool are still in use", live);
    else if (atomic_load(&pool->group))
        status = group_leave(pool, err) < 0 ? USWAP_E_BUSY : 0;
    if (status == 0) {
        family_leave(pool);
        reclaimer_stop(pool);
        fault_thread_stop(pool);
        context_drain(&pool->reclaim_context);
        watch_stop(pool);
        release(pool);
    }
    fork_allow();
    api_leave(&guard);
    return status;
}

/* ---- what this is ---- */

uswap_pool *process_pool;

EXPORT uswap_pool *uswap_process_pool(void) {
    return process_pool;
}

EXPORT const char *uswap_build_info(void) {
    return "0.1.0"
#ifdef USWAP_HAVE_URING
           ", io_uring"
#else
           ", no io_uring"
#endif
#ifdef USWAP_HAVE_CRYPTO
           ", libcrypto"
#else
           ", no libcrypto"
#endif
#ifdef USWAP_FAILPOINTS
           ", failpoints"
#endif
#ifdef USWAP_DEBUG
           ", debug"
#endif
        ;
}
