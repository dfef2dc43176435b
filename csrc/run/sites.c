/*
 * sites.c - by 2 MiB of addresses: the core counts how long faults there have waited (region/stall.h), malloc and mmap leave who asked for them.
 */
#define _GNU_SOURCE
#include "run/sites.h"

#include "region/region_range.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#define SITES_SHOWN 5
#define SITES_MAX 512

typedef struct {
    const void *caller; /* NULL: nobody in particular */
    run_space where;
    uint64_t waited_ns;
} site;

static _Atomic uintptr_t *callers[SPACES];
static _Atomic uint64_t *waited[SPACES];

static size_t blocks_of(const space *s) {
    return (s->end - s->base) / BLOCK_BYTES;
}

/* A word for each block; the child of a fork goes on with a copy. Return: NULL where the kernel refuses. */
static void *words_for(const space *s) {
    size_t bytes = blocks_of(s) * sizeof(uint64_t);
    void *words =
        run_core_mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (words == MAP_FAILED)
        return NULL;
    run_core_madvise(words, bytes, MADV_NOHUGEPAGE);
    return words;
}

void run_sites_open(space *s) {
    size_t i = (size_t)(s - spaces);
    callers[i] = words_for(s);
    waited[i] = words_for(s);
    region *r = region_get_by_id(&run_pool->regions, s->region);
    if (r && callers[i] && waited[i])
        r->waited = waited[i];
    else
        callers[i] = NULL;
    if (r)
        region_put(r);
}

void run_sites_forget_waits(void) {
    for (int i = 0; i < SPACES; i++)
        if (waited[i])
            run_core_madvise((void *)waited[i], blocks_of(&spaces[i]) * sizeof *waited[i], MADV_DONTNEED);
}

void run_sites_note(const void *address, size_t bytes, const void *caller) {
    const space *s = bytes >= SITE_LEAST_BYTES ? space_of(address, bytes) : NULL;
    if (!s || !callers[s - spaces])
        return;
    size_t first = ((uintptr_t)address - s->base) / BLOCK_BYTES;
    for (size_t block = first; block * BLOCK_BYTES < (uintptr_t)address + bytes - s->base; block++)
        atomic_store_explicit(&callers[s - spaces][block], (uintptr_t)caller, memory_order_relaxed);
}

static void add(site *sites, size_t *count, site one) {
    size_t i = 0;
    while (i < *count && (sites[i].caller != one.caller || sites[i].where != one.where))
        i++;
    if (i == *count) {
        if (*count == SITES_MAX)
            return;
        sites[(*count)++] = (site){.caller = one.caller, .where = one.where};
    }
    sites[i].waited_ns += one.waited_ns;
}

static size_t collect(site *sites) {
    size_t count = 0;
    for (int i = 0; i < SPACES; i++)
        for (size_t block = 0; callers[i] && block < blocks_of(&spaces[i]); block++) {
            uint64_t ns = atomic_load_explicit(&waited[i][block], memory_order_relaxed);
            if (ns > 0)
                add(sites, &count,
                    (site){.caller = (const void *)atomic_load(&callers[i][block]),
                           .where = (run_space)i,
                           .waited_ns = ns});
        }
    return count;
}

static int describe(const site *one, char *text, size_t bytes) {
    Dl_info info;
    double seconds = (double)one->waited_ns / 1e9;
    if (!one->caller)
        return snprintf(text, bytes, "  waited %.3f s in %s\n", seconds,
                        one->where == SPACE_HEAP ? "small blocks (malloc)" : "small mappings");
    if (!dladdr(one->caller, &info) || !info.dli_fname)
        return snprintf(text, bytes, "  waited %.3f s in memory of %p\n", seconds, one->caller);
    const char *file = strrchr(info.dli_fname, '/') ? strrchr(info.dli_fname, '/') + 1 : info.dli_fname;
    const char *base = info.dli_sname ? info.dli_saddr : info.dli_fbase;
    return snprintf(text, bytes, "  waited %.3f s in memory of %s %s+0x%zx\n", seconds, file,
                    info.dli_sname ? info.dli_sname : "", (size_t)((const char *)one->caller - base));
}

size_t run_sites_report(char *text, size_t bytes) {
    static site sites[SITES_MAX];
    size_t count = collect(sites), length = 0;
    for (int shown = 0; shown < SITES_SHOWN && count > 0; shown++) {
        size_t longest = 0;
        for (size_t i = 1; i < count; i++)
            if (sites[i].waited_ns > sites[longest].waited_ns)
                longest = i;
        int written = describe(&sites[longest], text + length, bytes - length);
        if (written < 0 || (size_t)written >= bytes - length)
            break;
        length += (size_t)written;
        sites[longest] = sites[--count];
    }
    return length;
}
