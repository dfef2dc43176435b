/*
 * lost.c - how regions and pools end that Python owns: by their cell, whatever is interrupted there (src/uswap/_mapping.py).
 *
 * A cell is two numbers: the region's id (of a shared one: its object's index + 1; 0: it has not been made yet), and its pool's address. It becomes 0
 * here, in the call that ends the region, so that who was interrupted right after that call can make it again. The cell of a pool is its address.
 */
#include "pool.h"

#include <unistd.h>

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

/* Python's own functions: PyCapsule_GetPointer, PyEval_SaveThread, PyEval_RestoreThread. Set before there is a guard. */
static struct {
    void *(*pointer_of)(void *capsule, const char *name);
    void *(*let_go)(void); /* of the GIL */
    void (*take)(void *thread);
} python;

EXPORT void uswap_guards_use(void *pointer_of, void *let_go, void *take) {
    python.pointer_of = (void *(*)(void *, const char *))pointer_of;
    python.let_go = (void *(*)(void))let_go;
    python.take = (void (*)(void *))take;
}

/* A capsule's destructor: no Python code, so no exception comes here. Without the GIL, as every call of the core: it may wait for others. The pool is
 * there as long as Python has the cell among its regions. */
static void end_lost(void *capsule, int (*end)(uswap_pool *, uint64_t *, uswap_error *)) {
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

EXPORT int uswap_pool_end(uswap_pool **cell, uswap_error *err) {
    int status = *cell ? uswap_pool_destroy(*cell, err) : 0;
    if (status == 0)
        *cell = NULL;
    return status;
}

EXPORT void uswap_pool_lost(void *capsule) {
    uswap_pool **cell = python.pointer_of(capsule, NULL);
    if (!*cell || (*cell)->owner_pid != getpid())
        return;
    void *thread = python.let_go();
    uswap_pool_end(cell, NULL);
    python.take(thread);
}
