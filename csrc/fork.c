/*
 * fork.c - what becomes of a pool in a forked child: nothing, and clearly so.
 *
 * Regions, arenas and rings are MADV_DONTFORK, so in the child their addresses are free. They are occupied by PROT_NONE
 * placeholders before anything else can be mapped there, and a touch ends the child with one line instead of giving it zeroes.
 * The pool structure and the region table are inherited (a private copy), so that every entry point can tell that it is in a child.
 * vfork and posix_spawn run none of this and lose nothing.
 */
#define _GNU_SOURCE
#include "base/failpoint.h"
#include "fault/signal.h"
#include "frame/drop_mapped.h"
#include "pool.h"
#include "shared/group.h"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

static void occupy_regions(const uswap_pool *pool) {
    for (uint32_t i = 0; i < pool->regions.highest; i++) {
        const region *r = &pool->regions.regions[i];
        if (atomic_load(&r->state) == REGION_LIVE)
            mmap(r->base, r->object.pages << PAGE_SHIFT, PROT_NONE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
    }
}

/* The one thread of the child. No lock is taken: another thread may have held it in the parent. */
static void in_child(void) {
    bool any = false;
    FAILPOINT(fork_child);
    for (int i = 0; i < POOLS_MAX; i++) {
        const uswap_pool *pool = atomic_load(&pool_list[i]);
        if (!pool || pool->owner_pid == getpid())
            continue;
        any = true;
        occupy_regions(pool);
        group_in_child(pool);
        close(pool->uffd); /* else the parent's regions would stay registered as long as the child lives */
        close(pool->inlines.uffd);
        close(pool->self_mem_fd);
        drop_mapped_in_child(pool);
    }
    if (any)
        signal_arm_in_child(SIGSEGV);
}

static void register_once(void) {
    pthread_atfork(NULL, NULL, in_child);
}

void fork_watch(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, register_once);
}
