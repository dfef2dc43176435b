/*
 * region_lost.c - regions whose owner in Python was interrupted at the start of its finalizer (src/uswap/_mapping.py, rule 4).
 *
 * What is called here comes after that finalizer, and before the unmapping: the destructor of a capsule, no Python code, so no exception comes there.
 */
#define _GNU_SOURCE
#include "pool.h"

#include <dlfcn.h>

/* Its region and its pool; NULL: that has ended already, or has never begun. */
static uint64_t *cell_of(void *capsule) {
    typedef void *pointer_of(void *, const char *); /* PyCapsule_GetPointer; there, as there are capsules */
    pointer_of *get = (pointer_of *)dlsym(RTLD_DEFAULT, "PyCapsule_GetPointer");
    uint64_t *cell = get ? get(capsule, NULL) : NULL;
    return cell && cell[0] > 0 && cell[1] > 0 ? cell : NULL;
}

/* Which does not go as long as it has the region. */
static uswap_pool *pool_of(const uint64_t *cell) {
    return (uswap_pool *)(uintptr_t)cell[1];
}

EXPORT void uswap_region_lost(void *capsule) {
    uint64_t *cell = cell_of(capsule);
    if (!cell)
        return;
    uswap_region_destroy(pool_of(cell), cell[0], NULL);
    cell[1] = 0;
}

EXPORT void uswap_shared_lost(void *capsule) {
    uint64_t *cell = cell_of(capsule);
    if (!cell)
        return;
    uswap_shared_unmap(pool_of(cell), (uint32_t)(cell[0] - 1), NULL);
    cell[1] = 0;
}
