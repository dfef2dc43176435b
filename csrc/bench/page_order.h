/*
 * page_order.h - in which order a benchmark visits pages.
 *
 * Owns: the page of the i-th access, by arithmetic alone: a run can be interrupted and go on, and another side can be given the same pages.
 */
#ifndef USWAP_BENCH_PAGE_ORDER_H
#define USWAP_BENCH_PAGE_ORDER_H

#include "base/base.h"

typedef struct {
    uint64_t pages;
    uswap_bench_job job;
    double at_first, at_end, squeeze; /* of Zipf */
    uint64_t scatter;                 /* popular ranks lie that far apart */
} page_order;

page_order page_order_of(uint64_t pages, const uswap_bench_job *job);
uint64_t page_order_at(const page_order *order, uint64_t i);

#endif
