/*
 * join.c - one limit for all processes of a program: each that is executed joins the same named pool before its main (README, One limit for all).
 */
#define _GNU_SOURCE
#include "run/run.h"

#include "pool.h"

#include <sys/stat.h>
#include <unistd.h>

/* So often a keeper may leave just when a program comes. */
#define TRIES 100

static bool somebody_listens(uswap_error *err) {
    return uswap_group_living(run_set.pool_folder, err) > 0;
}

/* => somebody is in the pool. Return: 0 or a uswap_status. */
static int make_if_nobody(uswap_error *err) {
    if (somebody_listens(err))
        return 0;
    int lock = run_pool_lock(RUN_PATIENCE_NS, err), status = 0;
    if (lock < 0)
        return lock;
    if (!somebody_listens(err)) {
        mkdir(run_set.pool_folder, 0700); /* is it there: the core looks whose it is */
        status = run_keeper_start(lock, err);
    }
    if (status == USWAP_E_BUSY) { /* the keeper may still make the pool, in this folder: until then nobody else does */
        run_core_close(lock);
        return status;
    }
    if (status != 0)
        rmdir(run_set.pool_folder);
    run_pool_unlock(lock);
    return status;
}

uswap_pool *run_join(uswap_pool *(*make)(void)) {
    uswap_error err = {.status = USWAP_OK};
    int status = USWAP_E_CLOSED;
    for (int i = 0; i < TRIES && status == USWAP_E_CLOSED; i++) {
        status = make_if_nobody(&err);
        if (status != 0)
            continue;
        uswap_pool *pool = make();
        status = uswap_group_join(pool, run_set.pool_folder, &err);
        if (status == 0)
            return pool;
        uswap_pool_destroy(pool, NULL);
    }
    run_refuse("this process cannot share the limit of the others", err.detail);
}
