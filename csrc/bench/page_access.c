/*
 * page_access.c - uswap_bench_run: visits pages in an order, does something with each, checks what it finds, and takes the time.
 *
 * Contents: word 0 of a page is its version v, how often it has been added to; word w is a number made of page and w, plus v. So no page is full of one
 * value, a page in another's place shows, and whoever reads a page knows what the whole of it must be.
 */
#include "base/lock.h"
#include "bench/histogram.h"
#include "bench/page_order.h"

#define WORDS (PAGE_BYTES / sizeof(uint64_t))
#define MULTIPLIER UINT64_C(0x9E3779B97F4A7C15)
/* The clock is looked at for the budget only now and then. */
#define BUDGET_EVERY 64

static uint64_t word_of(uint64_t page, uint64_t w, uint64_t version) {
    return (page * WORDS + w + 1) * MULTIPLIER + version;
}

static void fill(uint64_t *words, uint64_t page) {
    words[0] = 0;
    for (uint64_t w = 1; w < WORDS; w++)
        words[w] = word_of(page, w, 0);
}

/* Sum of words 1 to 511. */
static uint64_t sum_of(const uint64_t *words) {
    uint64_t sum = 0;
    for (uint64_t w = 1; w < WORDS; w++)
        sum += words[w];
    return sum;
}

static uint64_t expected_sum(uint64_t page, uint64_t version) {
    const uint64_t n = WORDS - 1;
    return ((page * WORDS + 1) * n + n * (n + 1) / 2) * MULTIPLIER + n * version;
}

static bool read_all(const uint64_t *words, uint64_t page) {
    return sum_of(words) == expected_sum(page, words[0]);
}

static bool add_to_all(uint64_t *words, uint64_t page) {
    bool right = read_all(words, page);
    for (uint64_t w = 0; w < WORDS; w++)
        words[w]++;
    return right;
}

static bool touch(const volatile uint64_t *words, uint64_t page, uint64_t i) {
    uint64_t w = 1 + i % (WORDS - 1);
    return words[w] == word_of(page, w, words[0]);
}

static bool visit(uint64_t *words, uint64_t page, uint64_t i, uswap_bench_access access) {
    switch (access) {
    case USWAP_ACCESS_FILL:
        fill(words, page);
        return true;
    case USWAP_ACCESS_READ:
        return read_all(words, page);
    case USWAP_ACCESS_ADD:
        return add_to_all(words, page);
    case USWAP_ACCESS_TOUCH:
        return touch(words, page, i);
    }
    return false;
}

EXPORT void uswap_bench_run(void *memory, uint64_t pages, const uswap_bench_job *job, uswap_bench_result *result) {
    page_order order = page_order_of(pages, job);
    uswap_bench_access access = (uswap_bench_access)job->access;
    uint64_t begin = clock_now_ns(), before = begin;
    for (uint64_t i = job->first; i < job->first + job->count; i++) {
        uint64_t page = page_order_at(&order, i);
        result->wrong += !visit((uint64_t *)memory + page * WORDS, page, i, access);
        uint64_t now = clock_now_ns();
        histogram_add(result, now - before);
        before = now;
        result->accesses++;
        if (i % BUDGET_EVERY == 0 && now - begin >= job->budget_ns)
            break;
    }
    result->elapsed_ns += before - begin;
}

EXPORT uint64_t uswap_bench_bucket_ns(uint32_t bucket) {
    const uint32_t each = 1U << BUCKETS_PER_DOUBLING_SHIFT;
    if (bucket < each)
        return bucket;
    uint32_t doubling = (bucket >> BUCKETS_PER_DOUBLING_SHIFT) - 1;
    return ((uint64_t)(each + (bucket & (each - 1)) + 1) << doubling) - 1;
}
