#include "reclaim/direct.h"

#include "reclaim/page_out.h"
#include "reclaim/reclaimer.h"

/* How long a fault waits for the reclaimers before it evicts by itself. Evicting 16 MiB takes about as long. */
#define GRACE_NS UINT64_C(10000000)
/* A fault that waits for the kernel, or for pages that others hold for an instant, is tried again after this. */
#define RETRY_MS 1
/* The end of a write is told as freed frames; this is for writes that end badly. */
#define WRITE_WAIT_MS 10

static bool in_time(uswap_pool *pool, uint64_t waited_ns) {
    return pool->options.background && waited_ns < GRACE_NS && !reclaimer_is_exhausted(pool) &&
           !atomic_load(&pool->slots_exhausted);
}

/* No I/O and no eviction is on its way anywhere that could bring frames. */
static bool nothing_under_way(uswap_pool *pool) {
    return atomic_load(&pool->writes_in_flight) == 0 && atomic_load(&pool->reads_in_flight) == 0 &&
           atomic_load(&pool->evictors) == 0;
}

/* Whoever looks for victims has some of them in his hands, so while several threads look in vain none can tell that there are none. After
 * a round that found nothing they take turns. Return: false if it is somebody else's turn. */
static bool begin_round(uswap_pool *pool, bool *turn) {
    *turn = atomic_load(&pool->direct_in_vain) != 0;
    return !*turn || small_lock_try(&pool->direct_turn);
}

static direct_outcome evict(context *ctx, int *wait_ms) {
    uswap_pool *pool = ctx->pool;
    bool turn;
    *wait_ms = RETRY_MS;
    if (!begin_round(pool, &turn))
        return DIRECT_WAIT;
    uint64_t errors = STAT_GET(pool, write_errors);
    uint64_t freed = page_out_oldest(ctx, pool->options.reclaim_batch_pages);
    context_submit(ctx);
    while (context_complete(ctx, false)) {
    }
    bool frames = frame_pool_free(&pool->frames) > 0;
    bool failing = STAT_GET(pool, write_errors) != errors;
    bool nothing = !frames && (freed == 0 || failing) && nothing_under_way(pool);
    atomic_store(&pool->direct_in_vain, freed == 0);
    if (turn)
        small_lock_release(&pool->direct_turn);
    if (frames)
        return DIRECT_FRAMES;
    if (atomic_load(&pool->writes_in_flight) > 0)
        *wait_ms = WRITE_WAIT_MS;
    return nothing ? DIRECT_NOTHING : DIRECT_WAIT;
}

direct_outcome direct_reclaim(context *ctx, uint64_t waited_ns, int *wait_ms) {
    uswap_pool *pool = ctx->pool;
    *wait_ms = RETRY_MS;
    if (frame_pool_free(&pool->frames) > 0)
        return DIRECT_WAIT; /* not frames, but the kernel or the queue is short */
    if (in_time(pool, waited_ns)) {
        *wait_ms = (int)((GRACE_NS - waited_ns) / 1000000) + 1;
        return DIRECT_WAIT;
    }
    if (atomic_load(&pool->writes_in_flight) > 0) {
        /* What is being written now will be free soon: to evict more would be to evict too much. */
        *wait_ms = WRITE_WAIT_MS;
        return DIRECT_WAIT;
    }
    return evict(ctx, wait_ms);
}

void direct_grant(uswap_pool *pool) {
    atomic_fetch_add(&pool->frames.budget->over_limit_events, 1);
    atomic_fetch_add(&pool->frames.over_grant, 1);
}

void direct_revoke(uswap_pool *pool) {
    uint32_t grant = atomic_load(&pool->frames.over_grant);
    while (grant > 0 && !atomic_compare_exchange_weak(&pool->frames.over_grant, &grant, grant - 1)) {
    }
}
