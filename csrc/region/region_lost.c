/*
 * region_lost.c - how regions end that Python owns: by their cell, whatever is interrupted there (src/uswap/_mapping.py).
 *
 * A cell is two numbers: the region's id (of a shared one: its object's index + 1; 0: it has not been made yet), and its pool's address. It becomes 0
 * here, in the call that ends the region, so that who was interrupted right after that call can make it again.
 */
#define _GNU_SOURCE
#include "pool.h"

#include <dlfcn.h>

EXPORT int uswap_region_end(uswap_pool *pool, uint64_t *cell, uswap_error *err) {
    int status = cell[0] > 0 && cell[1] > 0 ? uswap_region_destroy(pool, cell[0], err) : 0;
    cell[1] = 0;
    return status;
}

EXPORT int uswap_shared_end(uswap_pool *pool, uint64_t *cell, uswap_error *err) {
    int status = cell[0] > 0 && cell[1] > 0 ? uswap_shared_unmap(pool, (uint32_t)(cell[0] - 1), err) : 0;
    cell[1] = 0;
    return status;
}

/* ---- guards: the finalizer was interrupted at its start ---- */

/* Python's own functions, which are there where capsules are. */
typedef struct {
    void *(*pointer_of)(void *, const char *); /* PyCapsule_GetPointer */
    void *(*let_go)(void);                     /* of the GIL: PyEval_SaveThread */
    void (*take)(void *);                      /* PyEval_RestoreThread */
} python_api;

static python_api find_python(void) {
    return (python_api){.pointer_of = (void *(*)(void *, const char *))dlsym(RTLD_DEFAULT, "PyCapsule_GetPointer"),
                        .let_go = (void *(*)(void))dlsym(RTLD_DEFAULT, "PyEval_SaveThread"),
                        .take = (void (*)(void *))dlsym(RTLD_DEFAULT, "PyEval_RestoreThread")};
}

/* A capsule's destructor: no Python code, so no exception comes here. Without the GIL, as every call of the core: it may wait for others. The pool is
 * there as long as Python has the cell among its regions. */
static void end_lost(void *capsule, int (*end)(uswap_pool *, uint64_t *, uswap_error *)) {
    python_api python = find_python();
    uint64_t *cell = python.pointer_of(capsule, NULL);
    if (cell[1] == 0)
        return;
    void *thread = python.let_go();
    end((uswap_pool *)(uintptr_t)cell[1], cell, NULL);
    python.take(thread);
}

EXPORT void uswap_region_lost(void *capsule) {
    end_lost(capsule, uswap_region_end);
}

EXPORT void uswap_shared_lost(void *capsule) {
    end_lost(capsule, uswap_shared_end);
}
