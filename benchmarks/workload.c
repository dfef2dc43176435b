/*
 * workload.c - the access loops of the benchmark: the same native code on every side, called through ctypes (no GIL).
 *
 * Word i of a page is word_of(page, version, i) + added; word 0 may be the page's mark instead (touch_write leaves it).
 * No page is all zeroes and no two are equal, so that no side can save I/O on the contents.
 */
#define _GNU_SOURCE /* RUSAGE_THREAD */
#include <math.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <time.h>

#define WORDS 512

static uint64_t word_of(uint64_t page, uint64_t version, uint64_t i) {
    return (page + 1) * UINT64_C(0x9E3779B97F4A7C15) + version * UINT64_C(0xD1342543DE82EF95) +
           i * UINT64_C(0xBF58476D1CE4E5B9);
}

static uint64_t mark_of(uint64_t page) {
    return ~page;
}

static uint64_t next_random(uint64_t *state) {
    uint64_t x = *state;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return *state = x;
}

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

/* ---- every word of every page ----------------------------------------------------------------------------------- */

void sweep_write(uint64_t *memory, uint64_t pages, uint64_t version) {
    for (uint64_t page = 0; page < pages; page++)
        for (uint64_t i = 0; i < WORDS; i++)
            memory[page * WORDS + i] = word_of(page, version, i);
}

void sweep_add(uint64_t *memory, uint64_t pages) {
    for (uint64_t i = 0; i < pages * WORDS; i++)
        memory[i] += 1;
}

static uint64_t page_sum(const uint64_t *words) {
    uint64_t sum = 0;
    for (uint64_t i = 0; i < WORDS; i++)
        sum += words[i];
    return sum;
}

uint64_t sweep_read(const uint64_t *memory, uint64_t pages) {
    uint64_t sum = 0;
    for (uint64_t page = 0; page < pages; page++)
        sum += page_sum(memory + page * WORDS);
    return sum;
}

/* From the last page to the first; within a page forwards. */
uint64_t sweep_read_backward(const uint64_t *memory, uint64_t pages) {
    uint64_t sum = 0;
    for (uint64_t page = pages; page-- > 0;)
        sum += page_sum(memory + page * WORDS);
    return sum;
}

/* One page of the first half, one of the second, and so on. */
uint64_t sweep_read_two_streams(const uint64_t *memory, uint64_t pages) {
    uint64_t sum = 0;
    for (uint64_t page = 0; page < pages / 2; page++)
        sum += page_sum(memory + page * WORDS) + page_sum(memory + (pages / 2 + page) * WORDS);
    return sum;
}

/* Return: number of words that are wrong, in pages first to first + count. */
uint64_t sweep_check(const uint64_t *memory, uint64_t first, uint64_t count, uint64_t version, uint64_t added) {
    uint64_t wrong = 0;
    for (uint64_t page = first; page < first + count; page++) {
        const uint64_t *words = memory + page * WORDS;
        wrong += words[0] != word_of(page, version, 0) + added && words[0] != mark_of(page);
        for (uint64_t i = 1; i < WORDS; i++)
            wrong += words[i] != word_of(page, version, i) + added;
    }
    return wrong;
}

/* ---- one word a page, until so many accesses or so much time are over; return: accesses made --------------------- */

uint64_t touch_read_stride(const uint64_t *memory, uint64_t pages, uint64_t stride, uint64_t count, uint64_t budget_ns,
                           uint64_t *sum) {
    uint64_t end = now_ns() + budget_ns, done = 0, page = 0, lane = 0;
    for (; done < count && now_ns() < end; done++) {
        *sum += *(const volatile uint64_t *)(memory + page * WORDS);
        page += stride;
        if (page >= pages) {
            lane = (lane + 1) % stride;
            page = lane;
        }
    }
    return done;
}

uint64_t touch_read_random(const uint64_t *memory, uint64_t pages, uint64_t seed, uint64_t count, uint64_t budget_ns,
                           uint64_t *sum) {
    uint64_t end = now_ns() + budget_ns, done = 0;
    for (; done < count && now_ns() < end; done++)
        *sum += *(const volatile uint64_t *)(memory + next_random(&seed) % pages * WORDS);
    return done;
}

/* Reads a word of each page of random records of so many pages. */
uint64_t touch_read_records(const uint64_t *memory, uint64_t pages, uint64_t length, uint64_t seed, uint64_t count, uint64_t budget_ns,
                            uint64_t *sum) {
    uint64_t end = now_ns() + budget_ns, done = 0;
    for (; done + length <= count && now_ns() < end; done += length) {
        uint64_t first = next_random(&seed) % (pages / length) * length;
        for (uint64_t page = first; page < first + length; page++)
            *sum += *(const volatile uint64_t *)(memory + page * WORDS);
    }
    return done;
}

uint64_t touch_write_random(uint64_t *memory, uint64_t pages, uint64_t seed, uint64_t count, uint64_t budget_ns) {
    uint64_t end = now_ns() + budget_ns, done = 0;
    for (; done < count && now_ns() < end; done++) {
        uint64_t page = next_random(&seed) % pages;
        *(volatile uint64_t *)(memory + page * WORDS) = mark_of(page);
    }
    return done;
}

/* Reads a word of random pages and writes it. */
uint64_t touch_add_random(uint64_t *memory, uint64_t pages, uint64_t seed, uint64_t count, uint64_t budget_ns, uint64_t *sum) {
    uint64_t end = now_ns() + budget_ns, done = 0;
    for (; done < count && now_ns() < end; done++) {
        uint64_t page = next_random(&seed) % pages;
        volatile uint64_t *word = memory + page * WORDS;
        *sum += *word;
        *word = mark_of(page);
    }
    return done;
}

/* ---- several threads --------------------------------------------------------------------------------------------- */

#define THREADS_MAX 64

typedef struct {
    pthread_t thread;
    const uint64_t *memory;
    uint64_t pages, seed, count, budget_ns, sum, done;
} reader;

static void *read_random(void *argument) {
    reader *self = argument;
    self->done = touch_read_random(self->memory, self->pages, self->seed, self->count, self->budget_ns, &self->sum);
    return 0;
}

/* Reads a word of random pages in so many threads, count in all. */
uint64_t touch_read_threads(const uint64_t *memory, uint64_t pages, uint64_t threads, uint64_t seed, uint64_t count,
                            uint64_t budget_ns, uint64_t *sum) {
    reader readers[THREADS_MAX];
    uint64_t started = 0, done = 0;
    for (; started < threads && started < THREADS_MAX; started++) {
        reader *self = &readers[started];
        *self = (reader){.memory = memory, .pages = pages, .count = count / threads, .budget_ns = budget_ns};
        self->seed = seed + started * UINT64_C(0x9E3779B97F4A7C15);
        if (pthread_create(&self->thread, 0, read_random, self) != 0)
            break;
    }
    for (uint64_t i = 0; i < started; i++) {
        pthread_join(readers[i].thread, 0);
        *sum += readers[i].sum;
        done += readers[i].done;
    }
    return done;
}

/* ---- Zipf --------------------------------------------------------------------------------------------------------- */

/* Ranks 1 to n with probability proportional to rank^-s, by rejection-inversion: W. Hoermann, G. Derflinger, "Rejection-inversion
 * to generate variates from monotone discrete distributions", ACM TOMACS 6(3), 1996. s is not 1. */
typedef struct {
    double s, n, at_first, at_end, squeeze;
} zipf;

static double integral(const zipf *z, double x) {
    return (pow(x, 1 - z->s) - 1) / (1 - z->s);
}

static double inverse(const zipf *z, double y) {
    return pow(1 + y * (1 - z->s), 1 / (1 - z->s));
}

static zipf zipf_of(uint64_t n, double s) {
    zipf z = {.s = s, .n = (double)n};
    z.at_first = integral(&z, 1.5) - 1;
    z.at_end = integral(&z, z.n + 0.5);
    z.squeeze = 2 - inverse(&z, integral(&z, 2.5) - pow(2, -s));
    return z;
}

static uint64_t zipf_next(const zipf *z, uint64_t *seed) {
    for (;;) {
        double unit = (double)(next_random(seed) >> 11) * 0x1p-53;
        double y = z->at_end + unit * (z->at_first - z->at_end), x = inverse(z, y);
        double rank = floor(x + 0.5);
        rank = rank < 1 ? 1 : rank > z->n ? z->n : rank;
        if (rank - x <= z->squeeze || y >= integral(z, rank + 0.5) - pow(rank, -z->s))
            return (uint64_t)rank;
    }
}

/* Fills ranks[count]: for tests of the sampler. */
void zipf_ranks(uint64_t n, double s, uint64_t seed, uint64_t *ranks, uint64_t count) {
    zipf z = zipf_of(n, s);
    for (uint64_t i = 0; i < count; i++)
        ranks[i] = zipf_next(&z, &seed);
}

static uint64_t greatest_common_divisor(uint64_t a, uint64_t b) {
    while (b != 0) {
        uint64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* Reads a word of pages whose popularity is Zipf's; popular pages lie scattered over the memory. */
uint64_t touch_read_zipf(const uint64_t *memory, uint64_t pages, double s, uint64_t seed, uint64_t count, uint64_t budget_ns,
                         uint64_t *sum) {
    zipf z = zipf_of(pages, s);
    uint64_t step = (uint64_t)((double)pages * 0.6180339887) | 1;
    while (greatest_common_divisor(step, pages) != 1)
        step += 2;
    uint64_t end = now_ns() + budget_ns, done = 0;
    for (; done < count && now_ns() < end; done++) {
        uint64_t page = (zipf_next(&z, &seed) - 1) * step % pages;
        *sum += *(const volatile uint64_t *)(memory + page * WORDS);
    }
    return done;
}

/* ---- a given order ------------------------------------------------------------------------------------------------ */

/* An access that took less found its page in memory; a first touch takes as long as this, a read from disk far longer. */
#define SLOW_NS 1000

/* The walk of touch_order; policy_worker.py has the same. Part k is memory of its own, filled by sweep_write as version k,
 * with the pages ends[k - 1] (or 0) to ends[k]. missed(context) counts the faults so far that waited for a read; 0: do not ask. */
typedef struct {
    uint64_t *const *parts;
    const uint64_t *ends;
    uint64_t *misses; /* of each part; added to */
    const uint32_t *order;
    uint64_t count, write, budget_ns;
    uint64_t (*missed)(void *context);
    void *context;
    uint64_t wrong; /* words that were not what they should be */
} walk;

/* Reads, or writes, a word of the pages in that order; asks after each slow access which were misses. Return: accesses made. */
uint64_t touch_order(walk *w) {
    uint64_t began = now_ns(), end = began + w->budget_ns, done = 0;
    uint64_t missed = w->missed ? w->missed(w->context) : 0;
    for (uint64_t before = now_ns(); done < w->count && before < end; done++) {
        uint64_t page = w->order[done], part = 0;
        while (page >= w->ends[part])
            part++;
        uint64_t place = part == 0 ? page : page - w->ends[part - 1];
        volatile uint64_t *word = w->parts[part] + place * WORDS;
        if (w->write) {
            *word = mark_of(place);
        } else {
            uint64_t found = *word;
            w->wrong += found != word_of(place, part, 0) && found != mark_of(place);
        }
        uint64_t after = now_ns();
        if (w->missed && after - before > SLOW_NS) {
            uint64_t now = w->missed(w->context);
            w->misses[part] += now - missed;
            missed = now;
            after = now_ns();
        }
        before = after;
    }
    return done;
}

/* missed of kernel swap: this thread's major faults. */
uint64_t thread_major_faults(void *context) {
    (void)context;
    struct rusage usage;
    return getrusage(RUSAGE_THREAD, &usage) == 0 ? (uint64_t)usage.ru_majflt : 0;
}

/* A pool's statistics as its C core gives them, called without Python. */
typedef struct {
    int (*stats)(void *pool, void *values, void *error);
    void *pool, *values, *error;
    uint64_t offset; /* of the counter in values */
} pool_counter;

/* missed of a pool. */
uint64_t pool_major_faults(void *context) {
    pool_counter *counter = context;
    if (counter->stats(counter->pool, counter->values, counter->error) < 0)
        return 0;
    return *(const uint64_t *)((const char *)counter->values + counter->offset);
}
