#define _GNU_SOURCE
#include "swap/holders.h"

#include "base/failpoint.h"
#include "pool.h"
#include "shared/group.h"
#include "swap/swap_cache.h"

#include <errno.h>
#include <sys/mman.h>

#define SLOTS_PER_CHUNK (PAGE_BYTES / sizeof(swap_slot))

static size_t bytes_for(const swap_area *area) {
    return sizeof(holders) + area->total_slots * sizeof(uint64_t);
}

static uint64_t bit_of(uint16_t member) {
    return UINT64_C(1) << member_index((member_id){member});
}

/* ---- made and unmade ---- */

/* Shared memory without a file: forked children have it, and nobody else. */
static int make(swap_area *area) {
    size_t bytes = bytes_for(area);
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        return -ENOMEM;
    munlock(memory, bytes); /* mlockall(MCL_FUTURE) would populate all of it */
    madvise(memory, bytes, MADV_DONTDUMP);
    atomic_store(&area->holders, memory);
    return 0;
}

int holders_make(uswap_pool *pool) {
    for (uint32_t i = 0; i < atomic_load(&pool->area_count); i++) {
        swap_area *area = &pool->areas[i];
        if (swap_area_is_closed(area) || atomic_load(&area->holders))
            continue;
        int status = make(area);
        if (status != 0)
            return status;
        holders *of = atomic_load(&area->holders);
        area->member = pool->family_member;
        atomic_store(&of->owner, pool->family_member);
        atomic_store(&of->users, bit_of(pool->family_member));
    }
    return 0;
}

void holders_fini(uswap_pool *pool) {
    for (uint32_t i = 0; i < atomic_load(&pool->area_count); i++) {
        holders *of = atomic_exchange(&pool->areas[i].holders, NULL);
        if (of)
            munmap(of, bytes_for(&pool->areas[i]));
    }
}

bool holders_close(holders *of, uint16_t member) {
    return (atomic_fetch_and(&of->users, ~bit_of(member)) & ~bit_of(member)) == 0;
}

/* ---- bits ---- */

/* Of an area of this process: slots that it has never used nobody can hold, and its memory says which those are. */
static void clear(const swap_area *area, holders *of, uint64_t bit) {
    for (uint64_t slot = 1; slot < area->total_slots; slot++) {
        if (!atomic_load_explicit(&area->slots_touched[slot / SLOTS_PER_CHUNK], memory_order_relaxed)) {
            slot += SLOTS_PER_CHUNK - 1 - slot % SLOTS_PER_CHUNK;
            continue;
        }
        _Atomic uint64_t *word = &of->words[slot];
        if (atomic_load_explicit(word, memory_order_relaxed) & bit)
            atomic_fetch_and(word, ~bit);
    }
    atomic_fetch_and(&of->users, ~bit);
    atomic_fetch_add(&of->released,
                     1); /* though no bit was there: it may have died between its last one and this count */
}

/* Whether the life is over: its process has ended, or the place is another's. */
static bool is_over(const group *family, uint16_t member) {
    uint64_t state = atomic_load(&group_entry(family, (member_id){member})->state);
    return member_id_of(state).value != member || member_state_of(state) == MEMBER_DEAD ||
           member_state_of(state) == MEMBER_FREE;
}

void holders_look(uswap_pool *pool, const group *family) {
    for (uint32_t i = 0; i < atomic_load(&pool->area_count); i++) {
        swap_area *area = &pool->areas[i];
        holders *of = atomic_load(&area->holders);
        if (!of || area->inherited || swap_area_is_closed(area))
            continue;
        for (unsigned index = 0; index < HOLDERS_MAX; index++) {
            uint16_t member = atomic_load(&of->life[index]);
            if (member == 0 || !is_over(family, member))
                continue;
            clear(area, of, bit_of(member));
            atomic_store(&of->life[index], 0);
            event_signal_shared(
                &commons_head(&family->commons)->chunks_given); /* who waits for the place looks again */
        }
    }
}

/* Of an area whose owner is gone, nobody gives slots out: the bits mean nothing. */
bool holders_may_begin(uswap_pool *pool, const group *family, uint16_t member) {
    for (uint32_t i = 0; i < atomic_load(&pool->area_count); i++) {
        const holders *of = atomic_load(&pool->areas[i].holders);
        if (of && atomic_load(&of->life[member_index((member_id){member})]) != 0 &&
            members_alive(family, (member_id){atomic_load(&of->owner)}))
            return false;
    }
    return true;
}

void holders_begin(uswap_pool *pool, uint16_t member) {
    for (uint32_t i = 0; i < atomic_load(&pool->area_count); i++) {
        holders *of = atomic_load(&pool->areas[i].holders);
        if (!of || swap_area_is_closed(&pool->areas[i]))
            continue;
        atomic_store(&of->life[member_index((member_id){member})], member);
        atomic_fetch_or(&of->users, bit_of(member));
    }
}

void holders_add(uswap_pool *pool, swap_entry entry, uint16_t member) {
    holders *of = atomic_load(&pool->areas[swap_entry_area(entry)].holders);
    atomic_fetch_or(&of->words[swap_entry_slot(entry)], bit_of(member));
}

void holders_release(uswap_pool *pool, swap_entry entry) {
    holders *of = atomic_load(&pool->areas[swap_entry_area(entry)].holders);
    uint64_t bit = bit_of(pool->family_member);
    if (atomic_fetch_and(&of->words[swap_entry_slot(entry)], ~bit) != bit)
        return;
    FAILPOINT(fork_released);
    atomic_fetch_add(&of->released, 1);
}

/* ---- lent slots ---- */

/* LENT -> free, if nobody holds it. Return: whether it was this caller who did it. */
static bool take_back(swap_area *area, holders *of, uint64_t slot) {
    uint64_t lent = SLOT_LENT;
    if (atomic_load(&of->words[slot]) != 0 || !atomic_compare_exchange_strong(&area->slots[slot].word, &lent, 0))
        return false;
    atomic_fetch_sub(&area->lent_slots, 1);
    return true;
}

bool holders_lend(uswap_pool *pool, swap_entry entry) {
    swap_area *area = &pool->areas[swap_entry_area(entry)];
    holders *of = atomic_load(&area->holders);
    uint64_t slot = swap_entry_slot(entry);
    if (!of || atomic_load(&of->words[slot]) == 0)
        return false;
    atomic_fetch_add(&area->lent_slots, 1);
    atomic_store(&area->slots[slot].word, SLOT_LENT);
    /* Sequentially consistent with holders_release: either the last holder's bit is seen to be gone, or the sweep after it sees LENT. */
    return !take_back(area, of, slot);
}

static uint64_t sweep(uswap_pool *pool, swap_area *area, holders *of) {
    uint64_t freed = 0;
    for (uint64_t slot = 1; slot < area->total_slots && atomic_load(&area->lent_slots) > 0; slot++) {
        if (!atomic_load_explicit(&area->slots_touched[slot / SLOTS_PER_CHUNK], memory_order_relaxed)) {
            slot += SLOTS_PER_CHUNK - 1 - slot % SLOTS_PER_CHUNK;
            continue;
        }
        if (atomic_load_explicit(&area->slots[slot].word, memory_order_relaxed) == SLOT_LENT &&
            take_back(area, of, slot)) {
            slot_alloc_give(area, slot, 1);
            freed++;
        }
    }
    if (freed > 0) {
        atomic_store(&pool->slots_exhausted, 0);
        event_signal(&area->slot_freed);
    }
    return freed;
}

static bool is_due(const swap_area *area) {
    const holders *of = atomic_load(&area->holders);
    return of && !area->inherited && !swap_area_is_closed(area) && atomic_load(&area->lent_slots) > 0 &&
           atomic_load(&of->released) != atomic_load(&area->swept);
}

bool holders_due(const uswap_pool *pool) {
    for (uint32_t i = 0; i < atomic_load(&pool->area_count); i++)
        if (is_due(&pool->areas[i]))
            return true;
    return false;
}

uint64_t holders_sweep(uswap_pool *pool) {
    uint64_t freed = 0;
    for (uint32_t i = 0; i < atomic_load(&pool->area_count); i++) {
        swap_area *area = &pool->areas[i];
        if (!is_due(area))
            continue;
        holders *of = atomic_load(&area->holders);
        atomic_store(&area->swept,
                     atomic_load(&of->released)); /* before the look: what is released after it is for the next */
        freed += sweep(pool, area, of);
    }
    return freed;
}
