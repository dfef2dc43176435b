#include "region/region.h"

#include "base/memory.h"
#include "region/stay.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#define REF_GENERATION_MASK UINT32_C(4095)
#define STAY_REGION_MASK UINT32_C(15)

int region_table_init(region_table *table) {
    *table = (region_table){0};
    table->regions = memory_map(REGIONS_MAX * sizeof *table->regions);
    table->by_address = memory_map(REGIONS_MAX * sizeof *table->by_address);
    if (!table->regions || !table->by_address) {
        region_table_fini(table);
        return -ENOMEM;
    }
    /* A forked child must find out what it must not touch (fork.c). */
    madvise(table->regions, REGIONS_MAX * sizeof *table->regions, MADV_DOFORK);
    return 0;
}

void region_table_fini(region_table *table) {
    memory_unmap(table->regions, REGIONS_MAX * sizeof *table->regions);
    memory_unmap((void *)table->by_address, REGIONS_MAX * sizeof *table->by_address);
    table->regions = NULL;
    table->by_address = NULL;
}

/* The live region in this position. An _Atomic lvalue as an index is read by gcc without any order, so it is loaded by name. */
static region *region_in(const region_table *table, uint32_t position) {
    return &table->regions[atomic_load(&table->by_address[position])];
}

/* Number of live regions with base <= address. Context: table->lock; or without it, and then the answer is a guess to be checked. */
static uint32_t count_up_to(const region_table *table, uintptr_t address) {
    uint32_t low = 0, high = table->live;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if ((uintptr_t)region_in(table, middle)->base <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool covers(const region *r, uintptr_t address) {
    return address - (uintptr_t)r->base < r->object.pages << PAGE_SHIFT;
}

/* First the reference, then the look, as below: what is live and covers the address now is right, however the search went. */
static region *guess(region_table *table, uintptr_t address) {
    uint32_t position = count_up_to(table, address);
    if (position == 0)
        return NULL;
    region *r = region_in(table, position - 1);
    atomic_fetch_add(&r->references, 1);
    if (atomic_load(&r->state) == REGION_LIVE && covers(r, address))
        return r;
    region_put(r);
    return NULL;
}

/* Only "there is none" can be wrong, and only if regions came or went during the search: then it is done again. */
region *region_get_by_address(region_table *table, uintptr_t address) {
    for (;;) {
        uint32_t before = atomic_load(&table->changing);
        region *r = guess(table, address);
        if (r || (before % 2 == 0 && atomic_load(&table->changing) == before))
            return r;
        sched_yield();
    }
}

bool region_is_leaving(region_table *table, uintptr_t address) {
    for (uint32_t i = 0; i < table->highest; i++) {
        const region *r = &table->regions[i];
        if (atomic_load(&r->state) == REGION_DYING && covers(r, address))
            return true;
    }
    return false;
}

/* Without the lock: first the reference, then the look. retire sets DYING first and then looks at the references, so one of
 * the two sees the other; a passing reference to an index that is not live does no harm. */
static region *reference(region_table *table, uint32_t index, uint32_t generation, uint32_t mask) {
    if (index >= REGIONS_MAX)
        return NULL;
    region *r = &table->regions[index];
    atomic_fetch_add(&r->references, 1);
    if (atomic_load(&r->state) == REGION_LIVE && (r->generation & mask) == generation)
        return r;
    region_put(r);
    return NULL;
}

region *region_get_by_ref(region_table *table, page_ref ref) {
    return reference(table, (uint32_t)(ref.value & 0xFFFF), (uint32_t)(ref.value >> 16) & REF_GENERATION_MASK,
                     REF_GENERATION_MASK);
}

region *region_get_by_stay(region_table *table, stay s) {
    region *r = reference(table, (uint32_t)(s.value >> STAY_INDEX_SHIFT) & (REGIONS_MAX - 1),
                          (uint32_t)(s.value >> STAY_REGION_SHIFT) & STAY_REGION_MASK, STAY_REGION_MASK);
    if (r && stay_page(s) >= r->object.pages) {
        region_put(r);
        return NULL;
    }
    return r;
}

region *region_get_by_id(region_table *table, uint64_t id) {
    return id >> 48 ? NULL : reference(table, (uint32_t)(id & 0xFFFF), (uint32_t)(id >> 16), UINT32_MAX);
}

region *region_get_settled(region_table *table, uint64_t id) {
    for (;;) {
        region *r = region_get_by_id(table, id);
        if (!r || atomic_load(&r->resizing) == RESIZING_NOT)
            return r;
        region_put(r);
        region_await_settled(r, RESIZING_WAITS);
    }
}

/* Against "DYING, or resizing, then look at the references": one of the two sees the other. */
void region_put(region *r) {
    if (atomic_fetch_sub(&r->references, 1) == 1 &&
        (atomic_load(&r->state) == REGION_DYING || atomic_load(&r->resizing) != RESIZING_NOT))
        parking_wake((const void *)&r->references);
}

/* Context: table->lock. */
static bool overlaps(const region_table *table, const unsigned char *base, size_t bytes) {
    uint32_t position = count_up_to(table, (uintptr_t)base + bytes - 1);
    if (position == 0)
        return false;
    const region *r = region_in(table, position - 1);
    return (uintptr_t)r->base + (r->object.pages << PAGE_SHIFT) > (uintptr_t)base;
}

bool region_table_overlaps(region_table *table, const region *r, const unsigned char *base, size_t bytes) {
    small_lock_acquire(&table->lock);
    uint32_t position = count_up_to(table, (uintptr_t)base + bytes - 1);
    bool own = r && position > 0 && table->by_address[position - 1] == r->index;
    bool taken = !own && overlaps(table, base, bytes);
    small_lock_release(&table->lock);
    return taken;
}

static region *find_free(region_table *table) {
    for (uint32_t i = 0; i < table->highest; i++)
        if (atomic_load(&table->regions[i].state) == REGION_FREE)
            return &table->regions[i];
    return table->highest < REGIONS_MAX ? &table->regions[table->highest++] : NULL;
}

size_t region_touched_bytes(size_t pages) {
    return pages / PAGE_WORDS_PER_CHUNK + 1;
}

/* Of addresses, so that one more may be begun at either end. */
size_t region_huge_bytes(size_t pages) {
    return pages / BLOCK_PAGES + 2;
}

static void object_fini(memory_object *object) {
    memory_unmap((void *)object->words, object->capacity * sizeof(page_word));
    memory_unmap((void *)object->touched, region_touched_bytes(object->capacity));
    memory_unmap((void *)object->huge, region_huge_bytes(object->capacity));
    object->words = NULL;
    object->touched = object->huge = NULL;
    object->capacity = 0;
    atomic_store(&object->pages, 0);
}

static int object_init(memory_object *object, size_t pages) {
    atomic_store(&object->pages, pages);
    object->capacity = pages;
    object->words = memory_map(pages * sizeof(page_word));
    object->touched = memory_map(region_touched_bytes(pages));
    object->huge = memory_map(region_huge_bytes(pages));
    if (object->words && object->touched && object->huge)
        return 0;
    object_fini(object);
    return -ENOMEM;
}

/* One array after the other: where the last cannot be had, the others are only longer than is used. */
int region_extend(region *r, size_t pages) {
    memory_object *object = &r->object;
    size_t before = object->capacity;
    void *words = memory_grow((void *)object->words, before * sizeof(page_word), pages * sizeof(page_word));
    if (!words)
        return -ENOMEM;
    object->words = words;
    void *touched = memory_grow((void *)object->touched, region_touched_bytes(before), region_touched_bytes(pages));
    object->touched = touched ? touched : (void *)object->touched;
    void *huge =
        touched ? memory_grow((void *)object->huge, region_huge_bytes(before), region_huge_bytes(pages)) : NULL;
    object->huge = huge ? huge : (void *)object->huge;
    if (huge) {
        object->capacity = pages;
        return 0;
    }
    memory_cut((void *)object->words, pages * sizeof(page_word), before * sizeof(page_word));
    if (touched)
        memory_cut((void *)object->touched, region_touched_bytes(pages), region_touched_bytes(before));
    return -ENOMEM;
}

int region_table_add(region_table *table, unsigned char *base, size_t pages, const char *name, region **out) {
    small_lock_acquire(&table->lock);
    bool taken = overlaps(table, base, pages << PAGE_SHIFT);
    region *r = taken ? NULL : find_free(table);
    small_lock_release(&table->lock);
    if (!r)
        return taken ? -EEXIST : -ENFILE;
    /* api_lock keeps others from this index until it is published; references may pass by (reference()), so that field stays. */
    int status = object_init(&r->object, pages);
    if (status != 0)
        return status;
    r->index = (uint32_t)(r - table->regions);
    r->generation++;
    r->base = base;
    r->room_pages = pages;
    r->promised_pages = 0;
    r->reserved_slots = 0;
    atomic_store(&r->quiesced, 0);
    atomic_store(&r->advice, USWAP_ADVICE_NORMAL);
    atomic_store(&r->mapped_pages, 0);
    atomic_store(&r->swapped_pages, 0);
    atomic_store(&r->locked_pages, 0);
    atomic_store(&r->poisoned_pages, 0);
    atomic_store(&r->faults, 0);
    memset(&r->ahead, 0, sizeof r->ahead);
    memset(&r->fresh, 0, sizeof r->fresh);
    memset(&r->soft, 0, sizeof r->soft);
    snprintf(r->name, sizeof r->name, "%s", name);
    *out = r;
    return 0;
}

void region_table_publish(region_table *table, region *r) {
    small_lock_acquire(&table->lock);
    uint32_t position = count_up_to(table, (uintptr_t)r->base);
    atomic_fetch_add(&table->changing, 1);
    for (uint32_t i = table->live; i > position; i--)
        table->by_address[i] = table->by_address[i - 1];
    table->by_address[position] = r->index;
    table->live++;
    table->pages += r->object.pages;
    atomic_store(&r->state, REGION_LIVE);
    atomic_fetch_add(&table->changing, 1);
    small_lock_release(&table->lock);
}

/* The order of by_address around one region that gets another base. Context: lock; changing is odd. */
static void sort_in(region_table *table, region *r, unsigned char *base) {
    uint32_t from = count_up_to(table, (uintptr_t)r->base) - 1;
    INVARIANT(I3, table->by_address[from] == r->index);
    r->base = base;
    for (; from > 0 && region_in(table, from - 1)->base > base; from--)
        table->by_address[from] = table->by_address[from - 1];
    for (; from + 1 < table->live && region_in(table, from + 1)->base < base; from++)
        table->by_address[from] = table->by_address[from + 1];
    table->by_address[from] = r->index;
}

void region_table_move(region_table *table, region *r, unsigned char *base, size_t pages) {
    small_lock_acquire(&table->lock);
    atomic_fetch_add(&table->changing, 1);
    table->pages += pages - r->object.pages;
    if (base != r->base)
        sort_in(table, r, base);
    atomic_store(&r->object.pages, pages);
    atomic_fetch_add(&table->changing, 1);
    small_lock_release(&table->lock);
}

/* Threads that sleep until a page is read (bring_in.c) look again, and see that the region is leaving. */
static void notify_all(region *r) {
    for (size_t page = 0; page < r->object.pages; page++) {
        if (page % PAGE_WORDS_PER_CHUNK == 0 && !atomic_load(&r->object.touched[page / PAGE_WORDS_PER_CHUNK]))
            page += PAGE_WORDS_PER_CHUNK - 1;
        else if (page_load(&r->object.words[page]) & PAGE_WAITERS)
            page_notify(&r->object.words[page]);
    }
}

void region_table_retire(region_table *table, region *r) {
    small_lock_acquire(&table->lock);
    uint32_t position = count_up_to(table, (uintptr_t)r->base) - 1;
    INVARIANT(I3, table->by_address[position] == r->index);
    atomic_fetch_add(&table->changing, 1);
    table->live--;
    table->pages -= r->object.pages;
    for (uint32_t i = position; i < table->live; i++)
        table->by_address[i] = table->by_address[i + 1];
    atomic_store(&r->state, REGION_DYING);
    atomic_fetch_add(&table->changing, 1);
    small_lock_release(&table->lock);
    atomic_thread_fence(memory_order_seq_cst); /* against "set WAITERS, then look at the state" */
    notify_all(r);
    for (;;) {
        uint32_t ticket = parking_ticket((const void *)&r->references);
        if (atomic_load(&r->references) == 0)
            return;
        parking_wait((const void *)&r->references, ticket, 0);
    }
}

void region_table_remove(region_table *table, region *r) {
    (void)table;
    object_fini(&r->object);
    r->base = NULL;
    atomic_store(&r->state, REGION_FREE);
}

bool region_move_begin(region *r) {
    atomic_fetch_add(&r->movers, 1);
    if (!atomic_load(&r->quiesced))
        return true;
    region_move_end(r);
    return false;
}

void region_move_end(region *r) {
    if (atomic_fetch_sub(&r->movers, 1) == 1 && atomic_load(&r->quiesced))
        parking_wake((const void *)&r->movers);
}

void region_quiesce(region *r) {
    atomic_store(&r->quiesced, 1);
    for (;;) {
        uint32_t ticket = parking_ticket((const void *)&r->movers);
        if (atomic_load(&r->movers) == 0)
            return;
        parking_wait((const void *)&r->movers, ticket, 0);
    }
}

/* ---- blocks of addresses ---- */

static size_t block_number(const region *r, size_t page) {
    return ((uintptr_t)region_address(r, page) / BLOCK_BYTES) - (uintptr_t)r->base / BLOCK_BYTES;
}

bool region_block_of(const region *r, size_t page, size_t *first) {
    size_t within = (uintptr_t)region_address(r, page) / PAGE_BYTES % BLOCK_PAGES;
    if (within > page || page - within + BLOCK_PAGES > r->object.pages)
        return false;
    *first = page - within;
    return true;
}

bool region_is_huge(const region *r, size_t first) {
    return atomic_load_explicit(&r->object.huge[block_number(r, first)], memory_order_relaxed);
}

void region_set_huge(region *r, size_t first, bool huge) {
    atomic_store_explicit(&r->object.huge[block_number(r, first)], huge, memory_order_relaxed);
}
