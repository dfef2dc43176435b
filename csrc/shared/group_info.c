#include "shared/group_info.h"

#include "base/lock.h"
#include "pool.h"
#include "shared/shared_core.h"
#include "shared/shared_policy.h"

#include <string.h>

/* Room for what is locked and pinned, as a share of the limit of all. */
#define HELD_SHARE 64

uint64_t group_floor_frames(uint64_t limit_bytes, uint64_t bounce_frames) {
    uint64_t limit = limit_bytes >> PAGE_SHIFT;
    return RESERVE_FRAMES + LEAST_FAULT_FRAMES + MIN_OF(limit / HELD_SHARE, (uint64_t)HOLD_LEAVES_FRAMES) +
           shared_bounce_frames(limit) + bounce_frames;
}

static uint64_t chunk_bytes(const commons *c) {
    return commons_head(c)->chunk_frames << PAGE_SHIFT;
}

static void count_chunks(const commons *c, uint64_t *free, uint64_t *shared) {
    const commons_header *head = commons_head(c);
    uint64_t limit = commons_limit_chunks(c);
    for (uint64_t i = 0; i < head->chunks; i++) {
        uint32_t word = atomic_load_explicit(&commons_chunks(c)[i], memory_order_relaxed);
        *free += word == CHUNK_FREE && i < limit;
        *shared += word == CHUNK_SHARED || (word & CHUNK_DRAINING);
    }
}

/* By the slots themselves: what the clusters' hints add up to lacks what the dead took with them. */
static uint64_t slots_used(const commons *c) {
    const commons_header *head = commons_head(c);
    const shared_slot *slots = commons_slots(c);
    uint64_t from = head->slots_at, end = from + atomic_load(&head->usable_slots) * sizeof *slots, first, last,
             used = 0;
    for (; commons_touched(c, from, end, &first, &last); from = last)
        for (uint64_t slot = (first - head->slots_at) / sizeof *slots; slot < (last - head->slots_at) / sizeof *slots;
             slot++)
            used += use_kind_of(atomic_load_explicit(&slots[slot].use, memory_order_relaxed)) != USE_FREE;
    return used;
}

void group_info_get(const commons *c, uswap_group_info *info) {
    const commons_header *head = commons_head(c);
    uint64_t free = 0, shared = 0, floor = group_floor_frames(atomic_load(&head->limit_bytes), 0);
    count_chunks(c, &free, &shared);
    uint64_t used = MIN_OF(shared_used_frames(c), shared * head->chunk_frames);
    *info = (uswap_group_info){.limit_bytes = atomic_load(&head->limit_bytes),
                               .free_bytes = free * chunk_bytes(c),
                               .shared_limit_bytes = shared * chunk_bytes(c),
                               .shared_resident_bytes = used << PAGE_SHIFT,
                               .shared_swap_used_bytes = slots_used(c) << PAGE_SHIFT,
                               .floor_bytes = (floor + head->chunk_frames - 1) / head->chunk_frames * chunk_bytes(c),
                               .faults = atomic_load(&head->faults),
                               .soft_faults = atomic_load(&head->soft_faults),
                               .pages_read = atomic_load(&head->pages_read),
                               .pages_written = atomic_load(&head->pages_written),
                               .evictions = atomic_load(&head->evictions),
                               .clean_drops = atomic_load(&head->clean_drops),
                               .zero_drops = atomic_load(&head->zero_drops),
                               .mapped_for_peers = atomic_load(&head->mapped_for_peers)};
    info->members = group_info_members(c, MEMBER_NONE, NULL, 0);
    info->objects = group_info_objects(c, NULL, 0);
}

/* 0: a forked child's that has not said yet who it is. */
static uint32_t pid_in(uint64_t word) {
    return member_pid_of(word) & MEMBER_UNCLAIMED ? 0 : member_pid_of(word);
}

/* In one pass, in which each chunk is seen once: so the parts never add up to more than there are chunks. */
static void count_parts(const commons *c, uint64_t held[MEMBERS_MAX]) {
    for (uint64_t i = 0; i < commons_head(c)->chunks; i++) {
        uint32_t word = atomic_load(&commons_chunks(c)[i]);
        member_id id = {.value = (uint16_t)(word & UINT16_MAX)};
        if (word != id.value)
            continue;
        uint64_t state = atomic_load_explicit(&commons_head(c)->members[member_index(id)].state, memory_order_relaxed);
        held[member_index(id)] += member_equal(member_id_of(state), id);
    }
}

/* What each member has said that it uses. */
static void read_used(const commons *c, uint64_t used[MEMBERS_MAX]) {
    for (unsigned i = 0; i < MEMBERS_MAX; i++)
        used[i] = atomic_load(&commons_head(c)->members[i].private_frames);
}

uint32_t group_info_members(const commons *c, member_id self, uswap_member_info *infos, uint32_t capacity) {
    uint32_t count = 0;
    uint64_t now = clock_now_ns(), held[MEMBERS_MAX] = {0}, before[MEMBERS_MAX], after[MEMBERS_MAX];
    /* A member says what it uses before it gives chunks away, and after it has taken some. So of what it said before and after its chunks
     * were counted, the smaller fits them. */
    read_used(c, before);
    count_parts(c, held);
    read_used(c, after);
    for (unsigned i = 0; i < MEMBERS_MAX; i++) {
        const member_entry *entry = &commons_head(c)->members[i];
        uint64_t word = atomic_load(&entry->state), beat = atomic_load(&entry->beat_ns);
        if (member_state_of(word) == MEMBER_FREE)
            continue;
        if (count < capacity)
            infos[count] = (uswap_member_info){.member = member_id_of(word).value,
                                               .pid = pid_in(word),
                                               .state = member_state_of(word),
                                               .self = member_equal(member_id_of(word), self),
                                               .limit_bytes = held[i] * chunk_bytes(c),
                                               .private_bytes = MIN_OF(before[i], after[i]) << PAGE_SHIFT,
                                               .silent_ns = beat > 0 && now > beat ? now - beat : 0};
        count++;
    }
    return count;
}

static uint32_t pid_of(const commons *c, member_id id) {
    uint64_t word = atomic_load(&commons_head(c)->members[member_index(id)].state);
    return member_equal(member_id_of(word), id) && member_state_of(word) != MEMBER_FREE ? pid_in(word) : 0;
}

/* Only words that have been touched are looked at: the others are of ZERO pages. */
static void count_pages(const commons *c, const object_entry *object, uswap_object_info *info) {
    uint64_t at = atomic_load(&object->words), end = at + object_pages(object) * sizeof(shared_word), last;
    if (end > c->bytes)
        return;
    for (; commons_touched(c, at, end, &at, &last); at = last)
        for (; at < last; at += sizeof(shared_word)) {
            uint64_t word = shared_load(commons_at(c, at));
            shared_state state = shared_state_of(word);
            bool swapped = state == SHARED_SWAPPED || state == SHARED_READING ||
                           (state == SHARED_LEAVING && shared_field_of(word) > 0);
            info->resident_bytes += state == SHARED_RESIDENT || state == SHARED_WRITING ? PAGE_BYTES : 0;
            info->swapped_bytes += swapped ? PAGE_BYTES : 0;
            info->poisoned_pages += state == SHARED_POISONED;
        }
}

/* The next pages from at on that somebody holds: first, and end. */
static void next_held(const commons *c, uint32_t index, uint64_t at, uint64_t *first, uint64_t *end) {
    *first = *end = UINT64_MAX;
    for (unsigned i = 0; i < MEMBERS_MAX; i++) {
        const member_entry *member = &commons_head(c)->members[i];
        member_state state = member_state_of(atomic_load(&member->state));
        for (uint32_t n = 0; n < HOLDS_MAX && state != MEMBER_FREE && atomic_load(&member->holds) > 0; n++) {
            const member_hold *hold = &member->hold[n];
            uint64_t count = atomic_load(&hold->count), from = atomic_load(&hold->first), start = MAX_OF(from, at);
            if (count > 0 && atomic_load(&hold->object) == index && from + count > at && start < *first) {
                *first = start;
                *end = from + count;
            }
        }
    }
}

/* Each page once, whoever holds it. */
static uint64_t count_held(const commons *c, uint32_t index, uint64_t pages) {
    uint64_t held = 0, first, end;
    for (uint64_t at = 0; at < pages; at = end) {
        next_held(c, index, at, &first, &end);
        if (first < pages)
            held += MIN_OF(end, pages) - first;
    }
    return held;
}

static void describe(const commons *c, uint32_t index, uswap_object_info *info) {
    const object_entry *object = &commons_head(c)->objects[index];
    uint64_t mappers = atomic_load(&object->mappers) & ~MAPPERS_CLOSED;
    *info = (uswap_object_info){.object = index,
                                .key = shared_key(index, object_generation_of(atomic_load(&object->state))),
                                .creator_pid = pid_of(c, (member_id){(uint16_t)atomic_load(&object->creator)}),
                                .creator_region = atomic_load(&object->creator_region),
                                .size_bytes = object_pages(object) << PAGE_SHIFT,
                                .locked_bytes = count_held(c, index, object_pages(object)) << PAGE_SHIFT,
                                .faults = atomic_load(&object->faults),
                                .priority = atomic_load(&object->priority),
                                .mappers = (uint64_t)__builtin_popcountll(mappers)};
    memcpy(info->name, object->name, sizeof info->name);
    info->name[sizeof info->name - 1] = '\0';
    count_pages(c, object, info);
}

bool group_info_object(const commons *c, uint32_t index, uswap_object_info *info) {
    if (object_state_of(atomic_load(&commons_head(c)->objects[index].state)) != OBJECT_LIVE)
        return false;
    describe(c, index, info);
    return true;
}

uint32_t group_info_objects(const commons *c, uswap_object_info *infos, uint32_t capacity) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < OBJECTS_MAX; i++) {
        uint64_t word = atomic_load(&commons_head(c)->objects[i].state);
        if (object_state_of(word) != OBJECT_LIVE)
            continue;
        if (count < capacity)
            describe(c, i, &infos[count]);
        count++;
    }
    return count;
}
