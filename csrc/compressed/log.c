/*
 * log.c - where the copies lie: a log of segments, the oldest of which gives its memory to the next.
 *
 * Nothing is ever taken out of it but by the segment. What it says is compared with the slot's hash, by which a copy of older contents, or of a
 * page that had the slot before, is none: so nobody has to tell it when a slot is written, shared or free again.
 */
#include "compressed/compressed.h"

#include "base/memory.h"
#include "pool.h"
#include "swap/swap_cache.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define SEGMENT_BYTES (SEGMENT_PAGES * PAGE_BYTES)
/* Copies begin at multiples of this. */
#define PLACE_BYTES 16
#define PLACE_BITS 14
/* Segments from which copies are carried for one that is new. */
#define CARRIED_MAX 2
_Static_assert(SEGMENT_BYTES == (size_t)PLACE_BYTES << PLACE_BITS, "a place is a number of so many bits");

/* A copy in the log; its bytes follow. */
typedef struct {
    page_hash hash;
    uint64_t entry;
    uint32_t bytes;
    uint32_t unused;
} copy_record;
_Static_assert(sizeof(copy_record) == 2 * PLACE_BYTES, "records keep to their places");

static size_t log_bytes(const compressed_copies *c) {
    return (size_t)c->places * SEGMENT_BYTES;
}

static unsigned char *segment_address(const compressed_copies *c, uint64_t number) {
    return c->log + (number & (c->places - 1)) * SEGMENT_BYTES;
}

/* ---- its life ---- */

int compressed_init(uswap_pool *pool) {
    compressed_copies *c = &pool->compressed;
    *c = (compressed_copies){.oldest = 1, .next = 1, .filled = SEGMENT_BYTES};
    if (!pool->options.compress)
        return 0;
#ifndef USWAP_HAVE_LZ4
    return -ENOSYS;
#endif
    /* As many as there could be frames: only address space until used. */
    for (c->places = 2; c->places * SEGMENT_PAGES < pool->frames.arenas[0].places; c->places *= 2)
        ;
    c->log = memory_map(log_bytes(c));
    if (!c->log)
        return -ENOMEM;
    atomic_store(&c->demand.disk_ns, COPY_DISK_NS);
    c->on = true;
    return 0;
}

static void free_index(copy_index *index) {
    if (!index->locations)
        return;
    memory_unmap(index->locations, index->slots * sizeof *index->locations);
    memory_unmap((void *)(uintptr_t)index->touched, bytes_to_pages(index->slots * sizeof *index->locations));
    *index = (copy_index){0};
}

void compressed_fini(uswap_pool *pool) {
    compressed_copies *c = &pool->compressed;
    for (int i = 0; i < SWAP_AREAS_MAX; i++)
        free_index(&c->index[i]);
    if (c->log)
        memory_unmap(c->log, log_bytes(c));
    c->log = NULL;
    c->on = false;
}

/* ---- finding; under the lock ---- */

static copy_record *record_at(const compressed_copies *c, uint64_t location) {
    size_t place = location & ((UINT64_C(1) << PLACE_BITS) - 1);
    return (copy_record *)(void *)(segment_address(c, location >> PLACE_BITS) + place * PLACE_BYTES);
}

/* Where the index says that the copy of this slot lies; NULL: there is none any more. */
static uint64_t *location_in(compressed_copies *c, swap_entry entry) {
    const copy_index *index = &c->index[swap_entry_area(entry)];
    if (!index->locations || swap_entry_slot(entry) >= index->slots)
        return NULL;
    uint64_t *location = &index->locations[swap_entry_slot(entry)];
    return *location >> PLACE_BITS >= c->oldest && *location >> PLACE_BITS < c->next ? location : NULL;
}

/* Whether it is what the slot holds now. */
static bool is_current(uswap_pool *pool, const copy_record *record) {
    page_hash now = swap_map_hash(pool, (swap_entry){record->entry});
    return record->hash.low == now.low && record->hash.high == now.high;
}

copy_age copy_log_find(uswap_pool *pool, swap_entry entry, void *to, uint32_t *bytes) {
    compressed_copies *c = &pool->compressed;
    copy_age age = COPY_NONE;
    small_lock_acquire(&c->lock);
    const uint64_t *location = location_in(c, entry);
    const copy_record *record = location ? record_at(c, *location) : NULL;
    if (record && is_current(pool, record)) {
        age = 2 * ((*location >> PLACE_BITS) - c->oldest) < c->next - c->oldest ? COPY_OLD : COPY_YOUNG;
        *bytes = record->bytes;
        if (to)
            memcpy(to, record + 1, record->bytes);
    }
    small_lock_release(&c->lock);
    return age;
}

/* ---- the oldest segment goes; under the lock ---- */

static uint32_t room_of(const copy_record *record) {
    return (uint32_t)((sizeof *record + record->bytes + PLACE_BYTES - 1) / PLACE_BYTES * PLACE_BYTES);
}

static bool is_of_use(uswap_pool *pool, const copy_record *record) {
    return slot_count_of(swap_cache_load(pool, (swap_entry){record->entry})) > 0 && is_current(pool, record);
}

/* The oldest segment's copies are forgotten, or, if carried, those that are of use go to the youngest segment, as far as it has room. */
static void leave_oldest(uswap_pool *pool, bool carried) {
    compressed_copies *c = &pool->compressed;
    unsigned char *from = segment_address(c, c->oldest), *to = segment_address(c, c->next - 1);
    for (uint32_t at = 0, room; at + sizeof(copy_record) <= SEGMENT_BYTES; at += room) {
        const copy_record *record = (const copy_record *)(const void *)(from + at);
        if (record->bytes == 0)
            break; /* it was not filled to its end */
        room = room_of(record);
        uint64_t *location = location_in(c, (swap_entry){record->entry});
        if (!location || *location != (c->oldest << PLACE_BITS | at / PLACE_BYTES))
            continue;
        if (carried && c->filled + room <= SEGMENT_BYTES && is_of_use(pool, record)) {
            memcpy(to + c->filled, record, room);
            *location = (c->next - 1) << PLACE_BITS | c->filled / PLACE_BYTES;
            c->filled += room;
        } else {
            c->live -= room;
        }
    }
    madvise(from, SEGMENT_BYTES, MADV_DONTNEED);
    c->oldest++;
}

static void give_oldest(uswap_pool *pool) {
    compressed_copies *c = &pool->compressed;
    leave_oldest(pool, false);
    if (c->oldest == c->next)
        c->filled = SEGMENT_BYTES; /* nothing is left that could be filled */
    atomic_fetch_sub(&c->held, SEGMENT_PAGES);
    frame_uncharge(pool, SEGMENT_PAGES);
}

/* ---- adding; under the lock ---- */

static void begin_segment(compressed_copies *c) {
    c->next++;
    c->filled = 0;
}

/* The next segment has the frames of the oldest. What is of use there is carried while a good part of the log is of none: else the log would hold on to
 * what is not wanted. */
static void replace_oldest(uswap_pool *pool, bool may_carry) {
    compressed_copies *c = &pool->compressed;
    bool carried = may_carry && c->next - c->oldest > 1 && c->live < (c->next - c->oldest) * (SEGMENT_BYTES / 4 * 3);
    if (carried) {
        frame_charge(pool, SEGMENT_PAGES, FRAME_RESERVE); /* both have memory for an instant */
        begin_segment(c);
        leave_oldest(pool, true);
        frame_uncharge(pool, SEGMENT_PAGES);
    } else {
        leave_oldest(pool, false);
        begin_segment(c);
    }
}

/* Memory for one more segment: frames of its own while there are to be more, else those of the oldest. Return: false: neither. */
static bool open_segment(uswap_pool *pool, bool may_carry) {
    compressed_copies *c = &pool->compressed;
    uint64_t most = MIN_OF(compressed_target(pool), compressed_most(pool));
    while (c->next - c->oldest > 1 && atomic_load(&c->held) > most)
        give_oldest(pool);
    if (atomic_load(&c->held) + SEGMENT_PAGES <= most && c->next - c->oldest < c->places - 1 &&
        frame_charge(pool, SEGMENT_PAGES, FRAME_FAULT)) {
        atomic_fetch_add(&c->held, SEGMENT_PAGES);
        begin_segment(c);
    } else if (c->next > c->oldest) {
        replace_oldest(pool, may_carry);
    } else {
        return false;
    }
    return true;
}

/* Room for a copy of so many bytes. What is carried may fill a segment or two; then no more is. Return: whether there is. */
static bool make_room(uswap_pool *pool, uint32_t room) {
    const compressed_copies *c = &pool->compressed;
    for (int turn = 0; c->filled + room > SEGMENT_BYTES; turn++)
        if (!open_segment(pool, turn < CARRIED_MAX))
            return false;
    return true;
}

static uint64_t *location_of(uswap_pool *pool, swap_entry entry) {
    copy_index *index = &pool->compressed.index[swap_entry_area(entry)];
    if (!index->locations) {
        uint64_t slots = pool->areas[swap_entry_area(entry)].total_slots;
        uint64_t *locations = memory_map(slots * sizeof *locations);
        void *touched = memory_map(bytes_to_pages(slots * sizeof *locations));
        if (!locations || !touched) {
            if (locations)
                memory_unmap(locations, slots * sizeof *locations);
            return NULL;
        }
        *index = (copy_index){.locations = locations, .touched = touched, .slots = slots};
    }
    if (swap_entry_slot(entry) >= index->slots)
        return NULL;
    size_t chunk = swap_entry_slot(entry) * sizeof *index->locations / PAGE_BYTES;
    metadata_touch(pool, index->touched, chunk, chunk);
    return &index->locations[swap_entry_slot(entry)];
}

void copy_log_add(uswap_pool *pool, swap_entry entry, const void *copy, uint32_t bytes) {
    compressed_copies *c = &pool->compressed;
    copy_record record = {.entry = entry.value, .bytes = bytes};
    uint32_t room = room_of(&record);
    small_lock_acquire(&c->lock);
    uint64_t *location = location_of(pool, entry);
    if (location && make_room(pool, room)) {
        if (location_in(c, entry)) /* the former one is of no use any more */
            c->live -= room_of(record_at(c, *location));
        record.hash = swap_map_hash(pool, entry);
        *location = (c->next - 1) << PLACE_BITS | c->filled / PLACE_BYTES;
        *record_at(c, *location) = record;
        memcpy(record_at(c, *location) + 1, copy, bytes);
        c->filled += room;
        c->live += room;
    }
    small_lock_release(&c->lock);
}

void compressed_forget_area(uswap_pool *pool, uint32_t area) {
    compressed_copies *c = &pool->compressed;
    copy_index *index = &c->index[area];
    uint64_t pages = 0;
    small_lock_acquire(&c->lock);
    while (c->next > c->oldest)
        give_oldest(pool);
    for (uint64_t i = 0; index->locations && i < bytes_to_pages(index->slots * sizeof *index->locations); i++)
        pages += atomic_load_explicit(&index->touched[i], memory_order_relaxed);
    free_index(index);
    small_lock_release(&c->lock);
    if (pages > 0)
        frame_uncharge_metadata(pool, pages);
}

uint64_t compressed_fit(uswap_pool *pool) {
    uint64_t held = compressed_frames(&pool->compressed), most = compressed_most(pool);
    return held > most ? compressed_give(pool, held - most) : 0;
}

uint64_t compressed_give(uswap_pool *pool, uint64_t frames) {
    compressed_copies *c = &pool->compressed;
    uint64_t given = 0;
    if (atomic_load(&c->held) == 0)
        return 0;
    small_lock_acquire(&c->lock);
    for (; given < frames && c->next > c->oldest; given += SEGMENT_PAGES)
        give_oldest(pool);
    small_lock_release(&c->lock);
    return given;
}
