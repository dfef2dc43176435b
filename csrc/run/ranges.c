#define _GNU_SOURCE
#include "run/ranges.h"

#include "run/run.h"

#include <string.h>
#include <sys/mman.h>

#define FIRST_CAPACITY 1024

size_t ranges_find(const range_table *table, uintptr_t address) {
    size_t low = 0, high = table->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (table->all[middle].end > address)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

uintptr_t ranges_covered(const range_table *table, uintptr_t start, uintptr_t end) {
    for (size_t i = ranges_find(table, start); start < end && i < table->count && table->all[i].start <= start; i++)
        start = table->all[i].end;
    return MIN_OF(start, end);
}

bool ranges_cover(const range_table *table, uintptr_t start, uintptr_t end) {
    return ranges_covered(table, start, end) == end;
}

bool range_is_foreign(const range *r) {
    return r->foreign;
}

bool range_is_bare(const range *r) {
    return r->protection == 0;
}

bool ranges_have(const range_table *table, uintptr_t start, uintptr_t end, bool (*asked)(const range *)) {
    for (size_t i = ranges_find(table, start); i < table->count && table->all[i].start < end; i++)
        if (asked(&table->all[i]))
            return true;
    return false;
}

uintptr_t ranges_gap(const range_table *table, uintptr_t first, uintptr_t last, size_t bytes, size_t alignment) {
    uintptr_t at = first;
    for (size_t i = 0; i <= table->count; i++) {
        uintptr_t end = i < table->count ? table->all[i].start : last;
        at = (at + alignment - 1) & ~(uintptr_t)(alignment - 1);
        if (at < end && end - at >= bytes)
            return at;
        if (i < table->count)
            at = MAX_OF(at, table->all[i].end);
    }
    return 0;
}

static size_t promised_of(const range *r) {
    return r->promised ? r->end - r->start : 0;
}

/* Two more entries at most are needed by any change. */
static bool make_room(range_table *table) {
    if (table->count + 2 <= table->capacity)
        return true;
    size_t capacity = table->capacity > 0 ? 2 * table->capacity : FIRST_CAPACITY;
    void *fresh =
        run_core_mmap(NULL, capacity * sizeof(range), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (fresh == MAP_FAILED)
        return false;
    if (table->capacity > 0) {
        memcpy(fresh, table->all, table->count * sizeof(range));
        run_core_munmap(table->all, table->capacity * sizeof(range));
    }
    table->all = fresh;
    table->capacity = capacity;
    return true;
}

/* count entries at i become fresh_count others. */
static void splice(range_table *table, size_t i, size_t count, const range *fresh, size_t fresh_count) {
    for (size_t k = 0; k < count; k++)
        table->promised -= promised_of(&table->all[i + k]);
    memmove(&table->all[i + fresh_count], &table->all[i + count], (table->count - i - count) * sizeof(range));
    for (size_t k = 0; k < fresh_count; k++) {
        table->all[i + k] = fresh[k];
        table->promised += promised_of(&fresh[k]);
    }
    table->count += fresh_count - count;
}

bool ranges_cut(range_table *table, uintptr_t start, uintptr_t end) {
    if (!make_room(table))
        return false;
    size_t first = ranges_find(table, start), last = first;
    range left[2];
    size_t kept = 0;
    while (last < table->count && table->all[last].start < end) {
        const range *r = &table->all[last++];
        if (r->start < start) {
            left[kept] = *r;
            left[kept++].end = start;
        }
        if (r->end > end) {
            left[kept] = *r;
            left[kept++].start = end;
        }
    }
    splice(table, first, last - first, left, kept);
    return true;
}

static bool alike(const range *a, const range *b) {
    return a->protection == b->protection && !a->foreign && !b->foreign && a->sparse == b->sparse &&
           a->promised == b->promised;
}

bool ranges_put(range_table *table, const range *r) {
    if (!ranges_cut(table, r->start, r->end) || !make_room(table))
        return false;
    range merged = *r;
    size_t i = ranges_find(table, r->start), taken = 0;
    if (i > 0 && table->all[i - 1].end == r->start && alike(&table->all[i - 1], r)) {
        merged.start = table->all[--i].start;
        taken++;
    }
    if (i + taken < table->count && table->all[i + taken].start == r->end && alike(&table->all[i + taken], r)) {
        merged.end = table->all[i + taken].end;
        taken++;
    }
    splice(table, i, taken, &merged, 1);
    return true;
}
