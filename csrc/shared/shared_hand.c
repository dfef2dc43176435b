/*
 * shared_hand.c - which shared pages go next: a hand over the frame table, one for all members.
 *
 * Frames are handed out in the order of the table too, so the hand meets the oldest first: a clock. Accesses to a mapped page leave no
 * trace; what came back soon after it went is passed over for some rounds (shared_heat.c).
 */
#define _GNU_SOURCE
#include "shared/shared_core.h"

#include "base/failpoint.h"
#include "pool.h"

#define STEP OUT_BATCH_LEAST
#define COUNT_NS UINT64_C(1000000000)

static uint64_t *bit_word(out_state *s, uint32_t frame) {
    return &s->under_way[frame / 64];
}

static bool is_under_way(out_state *s, uint32_t frame) {
    return *bit_word(s, frame) >> (frame % 64) & 1;
}

void hand_release(group *g, out_page *victim) {
    *bit_word(out_of(g), victim->frame) &= ~(UINT64_C(1) << (victim->frame % 64));
    shared_region_put(victim->r);
    victim->r = NULL;
}

static bool is_shared(group *g, uint64_t frame) {
    uint32_t chunk = atomic_load(&commons_chunks(&g->commons)[frame / commons_head(&g->commons)->chunk_frames]);
    return chunk == CHUNK_SHARED || (chunk & CHUNK_DRAINING);
}

/* RESIDENT in that frame and free to go => WRITING. Who has said meanwhile that he holds it, or is at it, is looked at after this. *sealed: as it was. */
static bool take(group *g, shared_region *r, size_t page, uint32_t frame, bool even_hot, bool *sealed) {
    shared_word *word = &r->words[page];
    uint64_t now = shared_load(word);
    bool none = false; /* nobody waits for a page that is in nobody's hand */
    if (shared_state_of(now) != SHARED_RESIDENT || shared_field_of(now) != frame || shared_is_held(g, r->object, page))
        return false;
    *sealed = now & SHARED_SEALED;
    if (!(now & SHARED_ROUNDS_MASK) || even_hot)
        return shared_move(word, now, SHARED_WRITING, g->self, frame, heat_kept(now), &none);
    shared_move(word, now, SHARED_RESIDENT, MEMBER_NONE, frame, (now & SHARED_SEALED) | heat_passed(now), &none);
    return false;
}

void out_note_kept_slot(group *g, out_page *v) {
    uint64_t kept = slot_table_kept(g, v->frame), seen = kept > 0 ? slot_table_seen(g, kept - 1) : 0;
    if (kept == 0 || kept != slot_table_kept(g, v->frame) || !out_is_ours(g, v, shared_load(&v->r->words[v->page])))
        return;
    v->kept = kept;
    v->kept_seen = seen;
}

static bool look_at(group *g, uint32_t frame, bool even_hot, out_page *victim) {
    shared_ref ref;
    if (is_under_way(out_of(g), frame) || !frame_table_page(g, frame, &ref))
        return false;
    shared_region *r = shared_region_get(g, shared_ref_index(ref));
    if (!r)
        return false; /* those that have it mapped evict it */
    size_t page = shared_ref_page(ref);
    bool sealed = false;
    if (r->generation != shared_ref_generation(ref) || page >= object_pages(group_object(g, r->object)) ||
        !take(g, r, page, frame, even_hot, &sealed)) {
        shared_region_put(r);
        return false;
    }
    *bit_word(out_of(g), frame) |= UINT64_C(1) << (frame % 64);
    *victim = (out_page){.r = r, .page = page, .frame = frame};
    out_note_kept_slot(g, victim);
    victim->kind = sealed && victim->kept > 0 ? OUT_SEALED : OUT_CHOSEN;
    return true;
}

/* The next frames to be looked at. Return: false: there are no more. */
static bool advance(group *g, out_search *search, uint64_t *first, uint64_t *end) {
    commons_header *head = commons_head(&g->commons);
    while (search->left > 0) {
        bool range = search->end > 0;
        uint64_t at = range ? search->first : atomic_load(&head->hand);
        if (range && at >= search->end)
            return false;
        uint64_t start = at < head->frames ? at : 0;
        uint64_t chunk_end = (start / head->chunk_frames + 1) * head->chunk_frames;
        bool shared = is_shared(g, start);
        uint64_t stop = shared ? MIN_OF(start + STEP, chunk_end) : chunk_end;
        if (range)
            search->first = stop = MIN_OF(stop, search->end);
        else if (!atomic_compare_exchange_strong(&head->hand, &at, stop))
            continue;
        search->left -= MIN_OF(search->left, stop - start);
        if (shared) {
            *first = start;
            *end = stop;
            return true;
        }
    }
    return false;
}

/* The next one, if that page may go. */
static void choose(group *g, uint32_t frame, bool even_hot, out_page *victims, uint32_t *count, uint32_t *unsealed) {
    if (!look_at(g, frame, even_hot, &victims[*count]))
        return;
    *unsealed -= victims[*count].kind != OUT_SEALED;
    ++*count;
}

static uint32_t choose_in_range(group *g, out_search *search, out_page *victims, uint32_t want, uint32_t unsealed) {
    uint32_t count = 0;
    for (; search->pages > 0 && count < want && unsealed > 0; search->page++, search->pages--) {
        uint64_t word = shared_load(&search->r->words[search->page]);
        if (shared_state_of(word) == SHARED_RESIDENT && shared_field_of(word) < commons_head(&g->commons)->frames)
            choose(g, (uint32_t)shared_field_of(word), true, victims, &count, &unsealed);
    }
    return count;
}

/* What the policy of this process has named goes first, hot or not. */
static uint32_t choose_ordered(group *g, out_page *victims, uint32_t want, uint32_t *unsealed) {
    uint32_t count = 0, frame;
    while (count<want && * unsealed> 0 && shared_policy_next(g, &frame))
        choose(g, frame, true, victims, &count, unsealed);
    return count;
}

uint32_t hand_choose(group *g, out_search *search, out_page *victims, uint32_t want, uint32_t unsealed) {
    uint64_t first, end;
    if (search->r)
        return choose_in_range(g, search, victims, want, unsealed);
    uint32_t count = search->end > 0 ? 0 : choose_ordered(g, victims, want, &unsealed);
    while (count + STEP <= want && unsealed >= STEP && advance(g, search, &first, &end))
        for (uint64_t frame = first; frame < end; frame++)
            choose(g, (uint32_t)frame, search->end > 0, victims, &count, &unsealed);
    return count;
}

static uint64_t count_used(group *g) {
    const commons_header *head = commons_head(&g->commons);
    shared_frame *frames = commons_frames(&g->commons);
    uint64_t used = 0;
    for (uint64_t start = 0; start < head->frames; start += head->chunk_frames) {
        if (!is_shared(g, start))
            continue;
        for (uint64_t i = start; i < start + head->chunk_frames; i++) {
            use_kind kind = use_kind_of(atomic_load_explicit(&frames[i].use, memory_order_relaxed));
            used += kind != USE_FREE && kind != USE_RETIRED;
        }
    }
    return used;
}

/*
 * What changes hands while the frames are looked at may have been seen or not: by so little the count may be wrong until the next time. So
 * it takes what was found wrong, and not what was found; and nothing, if somebody else has put it right meanwhile. A count that holds only
 * where nothing has changed would never be had of many frames that are in use.
 */
static void count_anew(group *g) {
    _Atomic uint64_t *used = &commons_head(&g->commons)->shared_used;
    uint64_t word = atomic_load(used), round = word - (uint64_t)shared_used_of(word);
    uint64_t wrong = word - round - count_used(g);
    FAILPOINT(shared_counted);
    word = atomic_load(used);
    while (wrong != 0 && word - (uint64_t)shared_used_of(word) == round &&
           !atomic_compare_exchange_weak(used, &word, word - wrong + SHARED_USED_ROUND)) {
    }
}

void hand_count(group *g, uint64_t *total, uint64_t *used) {
    commons_header *head = commons_head(&g->commons);
    out_state *s = out_of(g);
    uint64_t now = clock_now_ns();
    *total = 0; /* without those that are being emptied */
    for (uint64_t chunk = 0; chunk < head->chunks; chunk++)
        *total += atomic_load(&commons_chunks(&g->commons)[chunk]) == CHUNK_SHARED ? head->chunk_frames : 0;
    if (now - s->counted_ns > COUNT_NS) { /* who died took its changes of the count with it */
        s->counted_ns = now;
        count_anew(g);
    }
    *used = MIN_OF(shared_used_frames(&g->commons), *total);
}
