/*
 * heap_run.c - the sheets of a heap: runs of units of 64 KiB, found first fit.
 *
 * A run that is freed gives its frames and slots back at once, but for the few that are stale: those keep them for the next block of their size.
 */
#include "heap/heap.h"

#include <string.h>

static uint32_t units_of(size_t bytes) {
    return (uint32_t)((bytes + HEAP_UNIT_BYTES - 1) >> HEAP_UNIT_SHIFT);
}

static void *address_of(const heap_run *run) {
    return (unsigned char *)(uintptr_t)run->span->address + ((size_t)run->unit << HEAP_UNIT_SHIFT);
}

static uint32_t unit_of(const heap_span *span, const void *address) {
    return (uint32_t)(((uintptr_t)address - span->address) >> HEAP_UNIT_SHIFT);
}

static uint32_t length_of(const heap_span *span, uint32_t unit) {
    return units_of((size_t)span->pages[unit] << PAGE_SHIFT);
}

/* ---- the units of a sheet. Context: heap.lock ---- */

static void mark(const heap_run *run, unit_use use) {
    memset(&run->span->use[run->unit], (int)(use == UNIT_FIRST ? UNIT_REST : use), run->units);
    run->span->use[run->unit] = (uint8_t)use;
}

static uint32_t free_units_at(const heap_span *span, uint32_t unit, uint32_t most) {
    uint32_t count = 0;
    while (count < most && unit + count < span->units && span->use[unit + count] == UNIT_FREE)
        count++;
    return count;
}

/* Return: whether there is such a run; run->span is given. */
static bool find_in(heap_run *run) {
    heap_span *span = run->span;
    if (span->large || span->longest < run->units || span->units_free < run->units)
        return false;
    for (uint32_t unit = 0; unit + run->units <= span->units; unit++) {
        uint32_t found = free_units_at(span, unit, run->units);
        if (found == run->units) {
            run->unit = unit;
            return true;
        }
        unit += found;
    }
    span->longest = run->units - 1;
    return false;
}

static bool find(uswap_heap *h, heap_run *run) {
    for (run->span = h->spans; run->span; run->span = run->span->next)
        if (find_in(run))
            return true;
    return false;
}

/* As large as all sheets together, so that few programs have many; but as small as it must be where swap space is short. */
static bool add_sheet(uswap_heap *h, heap_run *run) {
    size_t all = 0, least = (size_t)run->units << HEAP_UNIT_SHIFT;
    for (const heap_span *span = h->spans; span; span = span->next)
        all += span->large ? 0 : (size_t)span->length;
    size_t bytes = MIN_OF(MAX_OF(all, HEAP_LEAST_SHEET_BYTES), HEAP_SHEET_BYTES);
    least = (least + HEAP_GRANULE_BYTES - 1) & ~(HEAP_GRANULE_BYTES - 1);
    for (bytes = MAX_OF(bytes, least);; bytes = MAX_OF(bytes / 2, least)) {
        bytes &= ~(HEAP_GRANULE_BYTES - 1);
        run->span = heap_span_make(h, bytes, false);
        run->unit = 0;
        if (run->span || bytes == least)
            return run->span != NULL;
    }
}

/* Context: nobody uses the run, its pages are zero. One empty sheet is kept. */
static void release(uswap_heap *h, const heap_run *run) {
    heap_span *span = run->span;
    mark(run, UNIT_FREE);
    span->units_free += run->units;
    span->longest = span->units;
    if (span->units_free < span->units)
        return;
    for (heap_span *other = h->spans; other; other = other->next)
        if (other != span && !other->large && other->units_free == other->units) {
            heap_span_end(span);
            return;
        }
}

static void discard_and_release(uswap_heap *h, const heap_run *run) {
    /* Still in use as far as others see: no lock is held over the discarding, which may wait for I/O. */
    bool done = heap_discard(run->span, (size_t)run->unit << HEAP_UNIT_SHIFT, (size_t)run->pages << PAGE_SHIFT);
    small_lock_acquire(&h->lock);
    run->span->dirty |= !done;
    release(h, run);
    small_lock_release(&h->lock);
}

/* ---- stale runs. Context: heap.lock ---- */

static size_t bytes_of(const heap_run *run) {
    return (size_t)run->units << HEAP_UNIT_SHIFT;
}

static heap_run drop_stale(uswap_heap *h, uint32_t i) {
    heap_run run = h->stale[i];
    memmove(&h->stale[i], &h->stale[i + 1], (h->stale_count - i - 1) * sizeof *h->stale);
    h->stale_count--;
    h->stale_bytes -= bytes_of(&run);
    return run;
}

/* The newest of this length. */
static bool take_stale(uswap_heap *h, heap_run *run) {
    for (uint32_t i = h->stale_count; i-- > 0;)
        if (h->stale[i].units == run->units) {
            *run = drop_stale(h, i);
            return true;
        }
    return false;
}

/* Return: whether the oldest one has been given up; h->lock is let go meanwhile. */
static bool give_up_oldest(uswap_heap *h) {
    if (h->stale_count == 0)
        return false;
    heap_run run = drop_stale(h, 0);
    small_lock_release(&h->lock);
    discard_and_release(h, &run);
    small_lock_acquire(&h->lock);
    return true;
}

/* ---- what others call ---- */

static void hand_out(const heap_run *run, unit_use use, size_t bytes) {
    mark(run, use);
    /* Of a stale run, what was there beyond the new end must not be forgotten: discarding goes by pages. */
    run->span->pages[run->unit] = (uint16_t)MAX_OF(bytes_to_pages(bytes), (size_t)run->pages);
}

void *heap_run_take(uswap_heap *h, size_t bytes, unit_use use, bool *zeroed) {
    heap_run run = {.units = units_of(bytes)};
    if (run.units > HEAP_SHEET_UNITS)
        return NULL;
    small_lock_acquire(&h->lock);
    bool stale = !*zeroed && take_stale(h, &run), found = stale;
    while (!found) {
        found = find(h, &run) || add_sheet(h, &run);
        if (found)
            run.span->units_free -= run.units;
        else if (!give_up_oldest(h))
            break;
    }
    if (found) {
        hand_out(&run, use, bytes);
        *zeroed = !stale && !run.span->dirty;
    }
    small_lock_release(&h->lock);
    return found ? address_of(&run) : NULL;
}

static void give_back(heap_run run) {
    uswap_heap *h = run.span->heap;
    if (bytes_of(&run) > h->stale_limit) {
        discard_and_release(h, &run);
        return;
    }
    small_lock_acquire(&h->lock);
    while (h->stale_count == HEAP_STALE_RUNS || h->stale_bytes + bytes_of(&run) > h->stale_limit)
        give_up_oldest(h);
    h->stale[h->stale_count++] = run;
    h->stale_bytes += bytes_of(&run);
    small_lock_release(&h->lock);
}

void heap_run_free(heap_span *span, void *address) {
    uint32_t unit = unit_of(span, address);
    INVARIANT(I20, span->use[unit] == UNIT_FIRST);
    give_back((heap_run){.span = span, .unit = unit, .units = length_of(span, unit), .pages = span->pages[unit]});
}

void heap_run_free_small(heap_span *span, void *address, size_t bytes) {
    give_back((heap_run){.span = span,
                         .unit = unit_of(span, address),
                         .units = units_of(bytes),
                         .pages = (uint32_t)bytes_to_pages(bytes)});
}

size_t heap_run_bytes(const heap_span *span, const void *address) {
    return (size_t)span->pages[unit_of(span, address)] << PAGE_SHIFT;
}

/* Units behind the end of a run become part of it. Context: heap.lock. */
static bool extend(heap_span *span, uint32_t unit, uint32_t units, uint32_t wanted) {
    heap_run more = {.span = span, .unit = unit + units, .units = wanted - units};
    if (free_units_at(span, more.unit, more.units) < more.units)
        return false;
    mark(&more, UNIT_REST);
    span->units_free -= more.units;
    return true;
}

bool heap_run_resize(heap_span *span, void *address, size_t bytes) {
    uswap_heap *h = span->heap;
    uint32_t unit = unit_of(span, address), units = length_of(span, unit), wanted = MAX_OF(units_of(bytes), 1U);
    size_t pages = MAX_OF(bytes_to_pages(bytes), (size_t)1), before = span->pages[unit];
    bool done = true;
    if (bytes >= HEAP_LARGE_BYTES)
        return false;
    if (pages < before)
        done = heap_discard(span, ((size_t)unit << HEAP_UNIT_SHIFT) + (pages << PAGE_SHIFT),
                            (before - pages) << PAGE_SHIFT);
    small_lock_acquire(&h->lock);
    span->dirty |= !done;
    bool fits = wanted <= units || extend(span, unit, units, wanted);
    if (fits)
        span->pages[unit] = (uint16_t)pages;
    if (wanted < units)
        release(h, &(heap_run){.span = span, .unit = unit + wanted, .units = units - wanted});
    small_lock_release(&h->lock);
    return fits;
}
