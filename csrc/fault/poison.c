#define _GNU_SOURCE
#include "fault/poison.h"

#include "base/status.h"
#include "fault/signal.h"
#include "fault/uffd.h"
#include "shared/group.h"

#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

void poison_map(uswap_pool *pool, int uffd, unsigned char *address) {
    signal_arm(SIGBUS);
    if (pool->has_poison) {
        uffd_poison(uffd, address, 1, true);
    } else { /* before 6.6: a SIGSEGV instead of a SIGBUS */
        signal_arm(SIGSEGV);
        mprotect(address, PAGE_BYTES, PROT_NONE);
    }
    uffd_wake(uffd, address, PAGE_BYTES);
}

/* One line, put together without stdio: this runs in a signal handler. */
typedef struct {
    size_t length;
    char text[320];
} line;

static void put_text(line *l, const char *text) {
    size_t length = strlen(text);
    if (length > sizeof l->text - l->length)
        length = sizeof l->text - l->length;
    memcpy(l->text + l->length, text, length);
    l->length += length;
}

static void put_hex(line *l, uint64_t value) {
    char digits[19] = "0x";
    int at = 2;
    for (int shift = 60; shift >= 0; shift -= 4)
        if (value >> shift != 0 || shift == 0)
            digits[at++] = "0123456789abcdef"[value >> shift & 15];
    digits[at] = '\0';
    put_text(l, digits);
}

static const char FINDS_SUCH[] = " (region.verify() finds such pages)\n";

static void say_why(line *l, int os_errno) {
    put_text(l, ": ");
    put_text(l, lost_because(os_errno));
    put_text(l, FINDS_SUCH);
}

static void say_where(line *l, const region *r, uintptr_t address) {
    put_text(l, "region '");
    put_text(l, r->name);
    put_text(l, "' at offset ");
    put_hex(l, address - (uintptr_t)r->base);
}

static const char CHILD_TOUCHED[] = "uswap: this process was forked and touched its parent's memory: ";
static const char CHILD_ADVICE[] =
    "; regions are not inherited by a fork: use spawn or forkserver, or make a pool in the child\n";

static const char CHILD_ADVICE_SHARED[] =
    "; shared regions are not inherited by a fork: use uswap.reopen in the child\n";

/* The same for the shared regions of its group. */
static bool explain_shared(line *l, const group *g, bool child, uintptr_t address) {
    for (uint32_t i = 0; g && i < atomic_load(&g->regions_end); i++) {
        const shared_region *r = &g->regions[i];
        if (!atomic_load(&r->live) || address - (uintptr_t)r->base >= r->pages << PAGE_SHIFT)
            continue;
        size_t page = (address - (uintptr_t)r->base) >> PAGE_SHIFT;
        uint64_t word = child ? 0 : shared_load(&r->words[page]);
        if (!child && shared_state_of(word) != SHARED_POISONED)
            return false;
        put_text(l, child ? CHILD_TOUCHED : "uswap: lost page: ");
        if (child) { /* it has not got the memory in which the name is */
            put_text(l, "a shared region at offset ");
        } else {
            put_text(l, "shared region '");
            put_text(l, group_object(g, i)->name);
            put_text(l, "' at offset ");
        }
        put_hex(l, address - (uintptr_t)r->base);
        if (child)
            put_text(l, CHILD_ADVICE_SHARED);
        else
            say_why(l, (int)shared_field_of(word));
        return true;
    }
    return false;
}

/* A forked child that goes on has its parent's group as a former one, whose regions are still named there. */
static bool explain_group(line *l, const uswap_pool *pool, bool child, uintptr_t address) {
    if (explain_shared(l, atomic_load(&pool->group), child, address))
        return true;
    for (const group *g = pool->former; g; g = g->former)
        if (explain_shared(l, g, true, address))
            return true;
    return false;
}

/* Whether the address lies in a region of a pool and what there is to say of it. */
static bool explain(line *l, uswap_pool *pool, uintptr_t address) {
    bool child = pool->owner_pid != getpid(); /* the locks of a forked copy may never be released: look without */
    for (uint32_t i = 0; i < pool->regions.highest; i++) {
        region *r = &pool->regions.regions[i];
        if (atomic_load(&r->state) != REGION_LIVE || (!child && atomic_load(&r->resizing) == RESIZING_STILL) ||
            address - (uintptr_t)r->base >= r->object.pages << PAGE_SHIFT)
            continue;
        if (child) {
            put_text(l, CHILD_TOUCHED);
            say_where(l, r, address);
            put_text(l, CHILD_ADVICE);
            return true;
        }
        size_t page = (address - (uintptr_t)r->base) >> PAGE_SHIFT;
        uint64_t word = page_load(&r->object.words[page]);
        if (page_state_of(word) != PAGE_POISONED)
            return false;
        put_text(l, "uswap: lost page: ");
        say_where(l, r, address);
        say_why(l, page_errno_of(word));
        return true;
    }
    return explain_group(l, pool, child, address);
}

bool poison_last_words(uintptr_t address) {
    line l = {0};
    bool found = false;
    for (int i = 0; i < POOLS_MAX && !found; i++) {
        uswap_pool *pool = pool_enter(i);
        if (!pool)
            continue;
        found = explain(&l, pool, address);
        pool_leave(i);
    }
    if (found) {
        ssize_t ignored = write(STDERR_FILENO, l.text, l.length);
        (void)ignored;
    }
    return found;
}

/* A discard takes the mark away some instructions after, or before, the word says so. */
#define TRIES_MAX 1000

static bool is_of(uswap_pool *pool, uintptr_t address) {
    if (pool->owner_pid != getpid())
        return false;
    for (uint32_t i = 0; i < pool->regions.highest; i++) {
        const region *r = &pool->regions.regions[i];
        if (atomic_load(&r->state) == REGION_LIVE && address - (uintptr_t)r->base < r->object.pages << PAGE_SHIFT)
            return true;
    }
    group *g = atomic_load(&pool->group);
    for (uint32_t i = 0; g && i < atomic_load(&g->regions_end); i++) {
        const shared_region *r = &g->regions[i];
        if (atomic_load(&r->live) && address - (uintptr_t)r->base < r->pages << PAGE_SHIFT)
            return true;
    }
    return false;
}

bool poison_may_be_gone(uintptr_t address) {
    static _Atomic uintptr_t last;
    static _Atomic uint32_t tries;
    bool ours = false;
    for (int i = 0; i < POOLS_MAX && !ours; i++) {
        uswap_pool *pool = pool_enter(i);
        if (!pool)
            continue;
        ours = is_of(pool, address);
        pool_leave(i);
    }
    if (atomic_exchange(&last, address) != address)
        atomic_store(&tries, 0);
    return ours && atomic_fetch_add(&tries, 1) < TRIES_MAX;
}
