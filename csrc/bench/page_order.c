#include "bench/page_order.h"

#include <math.h>

/* ---- numbers that look random, by their index: SplitMix64 (G. Steele, D. Lea, C. Flood, OOPSLA 2014) ---- */

#define GOLDEN UINT64_C(0x9E3779B97F4A7C15)

static uint64_t mixed(uint64_t seed, uint64_t index) {
    uint64_t z = seed + (index + 1) * GOLDEN;
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

/* ---- Zipf: rejection-inversion (W. Hoermann, G. Derflinger, ACM TOMACS 6(3), 1996) ---- */

static double integral(double s, double x) {
    return (pow(x, 1 - s) - 1) / (1 - s);
}

static double inverse(double s, double y) {
    return pow(1 + y * (1 - s), 1 / (1 - s));
}

static uint64_t greatest_common_divisor(uint64_t a, uint64_t b) {
    while (b != 0) {
        uint64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

static void prepare_zipf(page_order *order) {
    double s = order->job.exponent;
    order->at_first = integral(s, 1.5) - 1;
    order->at_end = integral(s, (double)order->pages + 0.5);
    order->squeeze = 2 - inverse(s, integral(s, 2.5) - pow(2, -s));
    order->scatter = (uint64_t)((double)order->pages * 0.6180339887) | 1;
    while (greatest_common_divisor(order->scatter, order->pages) != 1)
        order->scatter += 2;
}

/* Rank 1 to pages. Each attempt takes the next of the access's own sequence of numbers. */
static uint64_t zipf_rank(const page_order *order, uint64_t i) {
    double s = order->job.exponent;
    uint64_t own = mixed(order->job.seed, i);
    for (uint64_t attempt = 0;; attempt++) {
        double unit = (double)(mixed(own, attempt) >> 11) * 0x1p-53;
        double y = order->at_end + unit * (order->at_first - order->at_end), x = inverse(s, y);
        double rank = fmin(fmax(floor(x + 0.5), 1), (double)order->pages);
        if (rank - x <= order->squeeze || y >= integral(s, rank + 0.5) - pow(rank, -s))
            return (uint64_t)rank;
    }
}

/* ---- the orders ---- */

page_order page_order_of(uint64_t pages, const uswap_bench_job *job) {
    page_order order = {.pages = pages, .job = *job};
    if (job->order == USWAP_ORDER_ZIPF)
        prepare_zipf(&order);
    return order;
}

/* Page step * n of the first round, then step * n + 1 of the second, ...; what does not fill a stride is left out. */
static uint64_t strided(const page_order *order, uint64_t i) {
    uint64_t step = MAX_OF(order->job.step, UINT64_C(1)), round = MAX_OF(order->pages / step, UINT64_C(1));
    return (i % round * step + i / round % step) % order->pages;
}

static uint64_t interleaved(const page_order *order, uint64_t i) {
    uint64_t streams = MAX_OF(order->job.step, UINT64_C(1)), each = MAX_OF(order->pages / streams, UINT64_C(1));
    return (i % streams * each + i / streams % each) % order->pages;
}

uint64_t page_order_at(const page_order *order, uint64_t i) {
    switch ((uswap_bench_order)order->job.order) {
    case USWAP_ORDER_SEQUENTIAL:
        break;
    case USWAP_ORDER_BACKWARD:
        return order->pages - 1 - i % order->pages;
    case USWAP_ORDER_STRIDE:
        return strided(order, i);
    case USWAP_ORDER_STREAMS:
        return interleaved(order, i);
    case USWAP_ORDER_RANDOM:
        return mixed(order->job.seed, i) % order->pages;
    case USWAP_ORDER_ZIPF:
        return (zipf_rank(order, i) - 1) * order->scatter % order->pages;
    }
    return i % order->pages;
}
