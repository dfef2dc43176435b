/*
 * fork.c - what becomes of the pools of a process in a forked child: snapshots of their private regions (fork/, README, Fork); or, where that
 * cannot be, nothing, and clearly so.
 *
 * Regions, arenas and rings are MADV_DONTFORK but for the moment of a prepared fork. Where a child cannot go on with a pool, its regions'
 * addresses are occupied by PROT_NONE placeholders before anything else can be mapped there, and a touch ends the child with one line instead
 * of giving it zeroes. The pool structure and the region table are always inherited (a private copy), so that every entry point can
 * tell that it is in a child. vfork and posix_spawn run none of this and lose nothing.
 */
#define _GNU_SOURCE
#include "fork/fork.h"

#include "base/failpoint.h"
#include "fault/signal.h"
#include "frame/drop_mapped.h"

#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

static small_lock lock;            /* held by the thread that forks, and while pools come and go */
static fork_plan plans[POOLS_MAX]; /* under lock */
static sigset_t mask;              /* of the forking thread; under lock */

void fork_hold(void) {
    small_lock_acquire(&lock);
}

void fork_allow(void) {
    small_lock_release(&lock);
}

/* ---- in the forking process ---- */

static void prepare(void) {
    sigset_t before;
    signals_block(&before);
    small_lock_acquire(&lock);
    mask = before;
    for (int i = 0; i < POOLS_MAX; i++) {
        uswap_pool *pool = atomic_load(&pool_list[i]);
        plans[i] = (fork_plan){.pool = pool && pool->owner_pid == getpid() ? pool : NULL};
        if (plans[i].pool)
            fork_place(&plans[i]);
    }
    for (int i = 0; i < POOLS_MAX; i++)
        if (plans[i].pool)
            fork_quiesce(&plans[i]);
}

static void in_parent(void) {
    for (int i = POOLS_MAX - 1; i >= 0; i--)
        if (plans[i].pool)
            fork_resume(&plans[i]);
    sigset_t after = mask;
    small_lock_release(&lock);
    signals_restore(&after);
}

/* ---- in the child ---- */

static void occupy(const region *r, int how) {
    mmap(r->base, r->object.pages << PAGE_SHIFT, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | how, -1, 0);
}

/* The fork may be of a signal handler, within the end of such a region: what was interrupted goes on in this process too, and unmaps there. So nothing
 * else must come to these addresses. */
static void occupy_quiesced(const fork_plan *plan) {
    const region_table *table = &plan->pool->regions;
    for (uint32_t i = 0; i < table->highest; i++) {
        const region *r = &table->regions[i];
        if (atomic_load(&r->state) == REGION_LIVE && atomic_load(&r->quiesced))
            occupy(r, MAP_FIXED_NOREPLACE);
    }
}

/* What has been inherited is replaced; of what has not, the addresses are free. */
static void occupy_regions(const fork_plan *plan) {
    const region_table *table = &plan->pool->regions;
    for (uint32_t i = 0; i < table->highest; i++) {
        const region *r = &table->regions[i];
        bool inherited = plan->ready && !atomic_load(&r->quiesced);
        if (atomic_load(&r->state) == REGION_LIVE)
            occupy(r, inherited ? MAP_FIXED : MAP_FIXED_NOREPLACE);
    }
}

static void close_one(int *fd) {
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* No lock is taken: another thread may have held it in the parent. */
static void orphan(const fork_plan *plan) {
    uswap_pool *pool = plan->pool;
    int inline_uffd = atomic_exchange(&pool->inlines.uffd, -1);
    occupy_regions(plan);
    group_in_child(pool);
    close_one(&pool->uffd); /* else the parent's regions would stay registered as long as the child lives */
    close_one(&inline_uffd);
    close_one(&pool->self_mem_fd);
    drop_mapped_fini(pool);
    snprintf(pool->fork_reason, sizeof pool->fork_reason, "%s", plan->reason);
}

/* Return: whether the pool is this process's now. */
static bool go_on(fork_plan *plan) {
    if (!plan->ready) {
        family_in_child(plan->pool, NULL);
        if (plan->placed) {
            close(plan->place.life_line[0]);
            close(plan->place.life_line[1]);
        }
        return false;
    }
    if (fork_rebirth(plan) == 0)
        return true;
    family_resign(&plan->place);
    return false;
}

/* The one thread of the child. */
static void in_child(void) {
    bool touchy = false;
    FAILPOINT(fork_child);
    lock = (small_lock){0};
    pool_list_in_child();
    for (int i = 0; i < POOLS_MAX; i++)
        if (plans[i].pool)
            occupy_quiesced(&plans[i]);
    for (int i = 0; i < POOLS_MAX; i++) {
        if (!plans[i].pool)
            continue;
        bool whole = go_on(&plans[i]);
        if (!whole)
            orphan(&plans[i]);
        touchy |= !whole || plans[i].pool->former; /* shared regions are the parent's alone */
    }
    if (touchy)
        signal_arm_in_child(SIGSEGV);
    signals_restore(&mask);
}

static void register_once(void) {
    pthread_atfork(prepare, in_parent, in_child);
}

void fork_watch(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, register_once);
}
