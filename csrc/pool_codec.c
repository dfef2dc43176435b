/*
 * pool_codec.c - the codec of a pool, and the bounce frames of its contexts: made and counted with the pool, so that no fault waits for
 * them to be made (README, The codec stage).
 */
#define _GNU_SOURCE
#include "pool.h"

#include "base/memory.h"
#include "io/bounce.h"

#include <errno.h>
#include <sys/mman.h>

/* The first numbers are those of the core's own threads; the API's contexts come after them, and then those of inline faults. */
enum { RECLAIM_CODER, FAULT_CODER, OWN_CODERS };
#define CONTEXTS (OWN_CODERS + API_CONTEXTS + INLINE_CONTEXTS)
/* What a context has at best. The reclaimers write nearly all: 5.5 MiB, 22 parts of 256 KiB, so that the disk has something to do while they choose and hash
 * the next block. Measured for fills under 128 MiB: 2.25 us a page with 2 MiB, 2.1 with 4, 1.9 with 6 and with 8 (1.85 without a codec). Reads need none. */
#define RECLAIM_PAGES_MAX BOUNCE_PAGES_MAX
#define FAULT_PAGES_MAX 128
#define API_PAGES_MAX 128
#define INLINE_PAGES_MAX 16
/* And at least, which is for limits up to SMALL_LIMIT. */
#define WORKER_PAGES_MIN 16
#define API_PAGES_MIN 8
#define INLINE_PAGES_MIN 4
#define SMALL_LIMIT 1024U
/* And this part of what the limit has above that: all together about a tenth of it. */
#define RECLAIM_SHARE 22
#define FAULT_SHARE 256
#define API_SHARE 192
#define INLINE_SHARE 1024

static uint32_t share(uint64_t limit_frames, uint64_t part, uint32_t least, uint32_t most) {
    uint64_t above = limit_frames > SMALL_LIMIT ? limit_frames - SMALL_LIMIT : 0;
    return (uint32_t)MIN_OF(least + above / part, (uint64_t)most);
}

static bounce_plan plan_for(uint64_t limit_frames) {
    return (bounce_plan){.reclaim = share(limit_frames, RECLAIM_SHARE, WORKER_PAGES_MIN, RECLAIM_PAGES_MAX),
                         .fault = share(limit_frames, FAULT_SHARE, WORKER_PAGES_MIN, FAULT_PAGES_MAX),
                         .api = share(limit_frames, API_SHARE, API_PAGES_MIN, API_PAGES_MAX),
                         .inlined = share(limit_frames, INLINE_SHARE, INLINE_PAGES_MIN, INLINE_PAGES_MAX)};
}

/* The sets, and a frame for second tries each. */
static uint64_t frames_of(const bounce_plan *plan) {
    return plan->reclaim + plan->fault + API_CONTEXTS * plan->api + INLINE_CONTEXTS * plan->inlined + CONTEXTS;
}

uint64_t pool_codec_frames(uint32_t encrypt, uint64_t limit_frames) {
    bounce_plan plan = plan_for(limit_frames);
    return encrypt ? frames_of(&plan) : 0;
}

/* Room to begin at a boundary of huge pages. All of the frames are counted, so the kernel may make them at once. */
static size_t mapped_bytes(const uswap_pool *pool) {
    return (pool->bounce_frames << PAGE_SHIFT) + BLOCK_BYTES;
}

static bool map_frames(uswap_pool *pool) {
    pool->bounce_mapping = memory_map(mapped_bytes(pool));
    if (!pool->bounce_mapping)
        return false;
    uintptr_t aligned = ((uintptr_t)pool->bounce_mapping + BLOCK_BYTES - 1) & ~(uintptr_t)(BLOCK_BYTES - 1);
    size_t huge = (pool->bounce_frames << PAGE_SHIFT) & ~(size_t)(BLOCK_BYTES - 1);
    pool->bounce_memory = pool->bounce_mapping + (aligned - (uintptr_t)pool->bounce_mapping);
    if (huge > 0)
        madvise(pool->bounce_memory, huge, MADV_HUGEPAGE); /* refused: ordinary pages then */
    return true;
}

int pool_codec_init(uswap_pool *pool) {
    if (!pool->options.encrypt)
        return 0;
    uint64_t limit_frames = pool->options.limit_bytes >> PAGE_SHIFT;
    int status = codec_init(&pool->codec, USWAP_CODEC_AES_128_XTS, CONTEXTS);
    return status == 0 ? pool_codec_make_frames(pool, limit_frames) : status;
}

int pool_codec_make_frames(uswap_pool *pool, uint64_t limit_frames) {
    if (!pool->options.encrypt)
        return 0;
    pool->bounce = plan_for(limit_frames);
    pool->bounce_frames = frames_of(&pool->bounce);
    /* Within the limit: the least one has room for them, and nothing else is counted yet. */
    frame_charge_over(pool, pool->bounce_frames);
    return map_frames(pool) ? 0 : -ENOMEM;
}

void pool_codec_fini(uswap_pool *pool) {
    codec_fini(&pool->codec);
    memory_unmap(pool->bounce_mapping, mapped_bytes(pool));
    pool->bounce_mapping = NULL;
}

/* Its number among the pool's contexts, and the bounce frames of those before it. */
static uint32_t number_of(const context *ctx, uint32_t *before, uint32_t *pages) {
    const uswap_pool *pool = ctx->pool;
    const bounce_plan *plan = &pool->bounce;
    if (ctx == &pool->reclaim_context) {
        *pages = plan->reclaim;
        *before = 0;
        return RECLAIM_CODER;
    }
    if (ctx == &pool->fault_context) {
        *pages = plan->fault;
        *before = plan->reclaim;
        return FAULT_CODER;
    }
    bool inlined = ctx->who == ACTOR_INLINE;
    uint32_t index = (uint32_t)(ctx - (inlined ? pool->inlines.contexts : pool->api_contexts));
    *pages = inlined ? plan->inlined : plan->api;
    *before = plan->reclaim + plan->fault + (inlined ? API_CONTEXTS * plan->api : 0) + index * *pages;
    return OWN_CODERS + (inlined ? (uint32_t)API_CONTEXTS : 0) + index;
}

const io_coding *pool_coding(const context *ctx, io_coding *coding) {
    const uswap_pool *pool = ctx->pool;
    uint32_t before;
    if (codec_kind(&pool->codec) == USWAP_CODEC_NONE)
        return NULL;
    coding->codec = &pool->codec;
    coding->coder = number_of(ctx, &before, &coding->pages);
    coding->memory = pool->bounce_memory + ((size_t)before << PAGE_SHIFT);
    coding->spare = pool->bounce_memory + ((pool->bounce_frames - CONTEXTS + coding->coder) << PAGE_SHIFT);
    return coding;
}
