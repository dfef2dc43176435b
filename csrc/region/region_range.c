#include "region/region_range.h"

#include "base/status.h"

int region_range_begin(region_range *range, uswap_pool *pool, uint64_t id, uint64_t start_bytes, uint64_t length_bytes,
                       range_rounding rounding, uswap_error *err) {
    int status = api_enter(pool, &range->guard, err);
    if (status != 0)
        return status;
    range->pool = pool;
    range->r = region_get_settled(&pool->regions, id);
    if (!range->r) {
        status = error_set(err, USWAP_E_CLOSED, 0, "region", NULL, "the region is closed");
    } else {
        uint64_t bytes = (uint64_t)range->r->object.pages << PAGE_SHIFT;
        if (start_bytes > bytes || length_bytes > bytes - start_bytes) {
            status =
                error_set(err, USWAP_E_INVALID, 0, "region", NULL,
                          "bytes %llu to %llu lie outside the region of %llu bytes", (unsigned long long)start_bytes,
                          (unsigned long long)(start_bytes + length_bytes), (unsigned long long)bytes);
            region_put(range->r);
        }
    }
    if (status != 0) {
        api_leave(&range->guard);
        return status;
    }
    uint64_t end = start_bytes + length_bytes;
    size_t last = rounding == RANGE_INSIDE ? (size_t)(end >> PAGE_SHIFT) : bytes_to_pages(end);
    range->first = rounding == RANGE_INSIDE ? bytes_to_pages(start_bytes) : (size_t)(start_bytes >> PAGE_SHIFT);
    range->count = last > range->first && length_bytes > 0 ? last - range->first : 0;
    return 0;
}

void region_range_end(region_range *range) {
    region_put(range->r);
    api_leave(&range->guard);
}

size_t region_range_chunk(const region_range *range, size_t page, bool *touched) {
    size_t chunk = page / PAGE_WORDS_PER_CHUNK;
    *touched = atomic_load(&range->r->object.touched[chunk]) != 0;
    return MIN_OF((chunk + 1) * PAGE_WORDS_PER_CHUNK, range->first + range->count) - page;
}

int region_lost(uswap_error *err, const char *operation, const region *r, size_t page, int os_errno) {
    unsigned long long offset = (unsigned long long)page << PAGE_SHIFT;
    error_set(err, USWAP_E_SWAP_READ, os_errno, operation, NULL,
              "region '%s', offset %llu: %s; the page's contents are lost", r->name, offset, lost_because(os_errno));
    if (err)
        err->offset = offset;
    return USWAP_E_SWAP_READ;
}
