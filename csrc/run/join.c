/*
 * join.c - one limit for all processes of a program: each that is executed joins the same named pool before its main (README, One limit for all).
 */
#define _GNU_SOURCE
#include "run/run.h"

#include "pool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* So often a keeper may leave just when a program comes. */
#define TRIES 100

static bool somebody_listens(uswap_error *err) {
    return uswap_group_living(run_set.pool_folder, err) > 0;
}

/* Return: a descriptor that is locked, or -1. */
static int lock_parent(void) {
    char parent[sizeof run_set.pool_folder];
    strcpy(parent, run_set.pool_folder);
    *strrchr(parent, '/') = '\0';
    int fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    while (fd >= 0 && flock(fd, LOCK_EX) != 0)
        if (errno != EINTR)
            break;
    return fd;
}

/* => somebody is in the pool. Return: 0 or a uswap_status. */
static int make_if_nobody(uswap_error *err) {
    if (somebody_listens(err))
        return 0;
    int lock = lock_parent(), status = 0;
    if (lock < 0) {
        snprintf(err->detail, sizeof err->detail, "the directory of %.300s cannot be opened", run_set.pool_folder);
        return USWAP_E_OS;
    }
    if (!somebody_listens(err)) {
        mkdir(run_set.pool_folder, 0700); /* is it there: the core looks whose it is */
        status = run_keeper_start(err);
        if (status != 0)
            rmdir(run_set.pool_folder);
    }
    run_core_close(lock); /* the keeper has closed it, too */
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
