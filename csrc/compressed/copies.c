/*
 * copies.c - pages are compressed as they leave memory, and come back from that.
 */
#include "compressed/compressed.h"

#include "frame/drop_mapped.h"
#include "scratch.h"

#ifdef USWAP_HAVE_LZ4
#include <lz4.h>

_Static_assert(sizeof(LZ4_stream_t) <= sizeof((context_scratch *)0)->compressor, "the compressor's state has room");

/* The record is a part of what a copy takes. */
#define RECORD_BYTES 32

static uint32_t compress(context *ctx, const void *memory) {
    context_scratch *scratch = ctx->scratch;
    int bytes = LZ4_compress_fast_extState(scratch->compressor, memory, (char *)scratch->copy, (int)PAGE_BYTES,
                                           COPY_BYTES_MAX - RECORD_BYTES, 1);
    return bytes > 0 ? (uint32_t)bytes : 0;
}

static bool expand(const void *copy, uint32_t bytes, void *memory) {
    return LZ4_decompress_safe(copy, memory, (int)bytes, (int)PAGE_BYTES) == (int)PAGE_BYTES;
}
#else
#define RECORD_BYTES 0
static uint32_t compress(context *ctx, const void *memory) {
    (void)ctx, (void)memory;
    return 0;
}

static bool expand(const void *copy, uint32_t bytes, void *memory) {
    (void)copy, (void)bytes, (void)memory;
    return false;
}
#endif

/* ---- leaving ---- */

/* A copy of these contents is there already. An old one becomes the youngest. */
static bool is_kept(context *ctx, swap_entry entry) {
    uint32_t bytes;
    copy_age age = copy_log_find(ctx->pool, entry, ctx->scratch->copy, &bytes);
    if (age == COPY_OLD)
        copy_log_add(ctx->pool, entry, ctx->scratch->copy, bytes);
    return age != COPY_NONE;
}

static void keep(context *ctx, swap_entry entry, const void *memory) {
    uswap_pool *pool = ctx->pool;
    uint32_t bytes = compress(ctx, memory);
    compressed_tried(pool, bytes > 0 ? bytes + RECORD_BYTES : 0);
    if (bytes == 0) {
        STAT_ADD(pool, compressed_refused, 1);
        return;
    }
    copy_log_add(pool, entry, ctx->scratch->copy, bytes);
    STAT_ADD(pool, compressed_kept, 1);
}

void compressed_keep(context *ctx, swap_entry entry, const void *memory) {
    if (ctx->pool->compressed.on && compressed_offered(ctx->pool) && !is_kept(ctx, entry))
        keep(ctx, entry, memory);
}

void compressed_keep_mapped(context *ctx, swap_entry entry, unsigned char *address) {
    void *page = ctx->scratch->page;
    if (ctx->pool->compressed.on && compressed_offered(ctx->pool) && !is_kept(ctx, entry) &&
        copy_mapped(ctx->pool, &address, &page, 1) == 1)
        keep(ctx, entry, page);
}

/* ---- coming back ---- */

bool compressed_has(uswap_pool *pool, swap_entry entry) {
    uint32_t bytes;
    return compressed_frames(&pool->compressed) > 0 && copy_log_find(pool, entry, NULL, &bytes) != COPY_NONE;
}

static void *memory_of(const io_request *request, uint32_t page) {
    size_t at = (size_t)page << PAGE_SHIFT;
    for (uint32_t i = 0;; at -= request->piece[i++].iov_len)
        if (at < request->piece[i].iov_len)
            return (char *)request->piece[i].iov_base + at;
}

bool compressed_read(context *ctx, const io_request *request) {
    uswap_pool *pool = ctx->pool;
    uint32_t bytes;
    for (uint32_t i = 0; i < request->pages; i++)
        if (copy_log_find(pool, swap_entry_after(request->first, i), ctx->scratch->copy, &bytes) == COPY_NONE ||
            !expand(ctx->scratch->copy, bytes, memory_of(request, i)))
            return false;
    STAT_ADD(pool, compressed_hits, request->pages);
    return true;
}
