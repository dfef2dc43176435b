/*
 * group_check.c - the invariants of a group (README, I15 to I18) over all words of the commons. Context: no program touches shared pages; the
 * members' own threads may still be ending reads and evictions. So what a live member has in hand is passed over, what nobody alive has is an error,
 * and of two words that disagree the one that was looked at first is looked at again: if it has changed, the page was on its way.
 */
#include "base/status.h"
#include "shared/group.h"
#include "shared/mend.h"
#include "shared/use_word.h"

#include <stdarg.h>
#include <stdio.h>

typedef struct {
    group *g;
    uswap_error *err;
    bool failed;
} check;

typedef unsigned long long ull;

__attribute__((format(printf, 3, 4))) static void fail(check *c, const char *invariant, const char *format, ...) {
    if (c->failed)
        return; /* the first one says most */
    char text[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    error_set(c->err, USWAP_E_CORRUPT, 0, "check", NULL, "%s does not hold: %s", invariant, text);
    c->failed = true;
}

/* ---- pages ---- */

/* Whether the page's word is still what it was when the other one was looked for. */
static bool is_still(check *c, shared_ref page, uint64_t word) {
    shared_word *at = shared_ref_word(c->g, page);
    return at && atomic_load(at) == word;
}

static void check_frame_of(check *c, shared_ref page, uint64_t word) {
    uint64_t frame = shared_field_of(word);
    const commons_header *head = commons_head(&c->g->commons);
    if (frame >= head->frames) {
        fail(c, "I16", "page %llx is in frame %llu of %llu", (ull)page.value, (ull)frame, (ull)head->frames);
        return;
    }
    const shared_frame *entry = &commons_frames(&c->g->commons)[frame];
    uint64_t use = use_load(&entry->use), chunk = frame / head->chunk_frames;
    bool disagrees = use_kind_of(use) != USE_PAGE || atomic_load(&entry->page) != page.value;
    if (disagrees && is_still(c, page, word))
        fail(c, "I16", "page %llx is in frame %llu, which says %llx of page %llx", (ull)page.value, (ull)frame,
             (ull)use, (ull)atomic_load(&entry->page));
    uint32_t owner = atomic_load(&commons_chunks(&c->g->commons)[chunk]);
    if (owner != CHUNK_SHARED && !(owner & CHUNK_DRAINING) && is_still(c, page, word))
        fail(c, "I18", "frame %llu has a page, and its chunk is not shared: %x", (ull)frame, (unsigned)owner);
    uint64_t slot = use_field_of(use);
    if (slot > 0 && !slot_table_is_of(c->g, slot - 1, page) && is_still(c, page, word) && use_load(&entry->use) == use)
        fail(c, "I17", "frame %llu keeps slot %llu, which is not its page's", (ull)frame, (ull)(slot - 1));
}

static void check_page(check *c, shared_ref page, uint64_t word) {
    shared_state state = shared_state_of(word);
    bool in_hand = (word & SHARED_LOCK) || state == SHARED_READING || state == SHARED_WRITING;
    if (in_hand) {
        if (!members_alive(c->g, shared_member_of(word)))
            fail(c, "I15", "page %llx is in the hand of member %x, who is not there: %llx", (ull)page.value,
                 shared_member_of(word).value, (ull)word);
        return;
    }
    if (state == SHARED_RESIDENT)
        check_frame_of(c, page, word);
    else if (state == SHARED_SWAPPED && !slot_table_is_of(c->g, shared_field_of(word), page) && is_still(c, page, word))
        fail(c, "I17", "page %llx has its contents in slot %llu, which is not its own", (ull)page.value,
             (ull)shared_field_of(word));
    else if (state > SHARED_POISONED)
        fail(c, "I15", "page %llx has no state: %llx", (ull)page.value, (ull)word);
}

static void check_object(check *c, uint32_t index) {
    const object_entry *object = group_object(c->g, index);
    uint64_t state = atomic_load(&object->state), at = atomic_load(&object->words), first, last;
    if (object_state_of(state) != OBJECT_LIVE && object_state_of(state) != OBJECT_DYING)
        return;
    const shared_word *words = commons_at(&c->g->commons, at);
    uint64_t end = at + atomic_load(&object->pages) * sizeof(shared_word), from = at;
    for (; commons_touched(&c->g->commons, from, end, &first, &last); from = last)
        for (uint64_t page = (first - at) / sizeof(shared_word); page < (last - at) / sizeof(shared_word); page++)
            check_page(c, shared_ref_make(index, object_generation_of(state), page), atomic_load(&words[page]));
}

/* ---- frames, slots ---- */

static bool is_in_hand(const check *c, uint64_t use) {
    return (use_kind_of(use) == USE_CLAIMED || use_kind_of(use) == USE_LEAVING) &&
           members_alive(c->g, use_member_of(use));
}

static void check_frame(check *c, uint64_t frame) {
    const shared_frame *entry = &commons_frames(&c->g->commons)[frame];
    uint64_t use = use_load(&entry->use), chunk = frame / commons_head(&c->g->commons)->chunk_frames;
    uint32_t owner = atomic_load(&commons_chunks(&c->g->commons)[chunk]);
    use_kind kind = use_kind_of(use);
    shared_ref page = {atomic_load(&entry->page)};
    if (kind == USE_RETIRED && owner == CHUNK_SHARED)
        fail(c, "I18", "frame %llu is retired, and its chunk is shared", (ull)frame);
    /* A frame of a chunk that has never been shared has never been touched. */
    else if (kind != USE_RETIRED && (use != 0 || page.value != 0) && owner != CHUNK_SHARED && !(owner & CHUNK_DRAINING))
        fail(c, "I18", "frame %llu is %llx, and its chunk is not shared: %x", (ull)frame, (ull)use, (unsigned)owner);
    else if (kind == USE_PAGE && !shared_word_has_frame(shared_ref_word(c->g, page), frame) &&
             use_load(&entry->use) == use)
        fail(c, "I16", "frame %llu is page %llx's, which is not in it", (ull)frame, (ull)page.value);
    else if (kind != USE_PAGE && kind != USE_FREE && kind != USE_RETIRED && !is_in_hand(c, use))
        fail(c, "I16", "frame %llu is in the hand of a member that is not there: %llx", (ull)frame, (ull)use);
}

static void check_slot(check *c, uint64_t slot) {
    const shared_slot *entry = &commons_slots(&c->g->commons)[slot];
    uint64_t use = use_load(&entry->use);
    use_kind kind = use_kind_of(use);
    shared_ref page = {atomic_load(&entry->page)};
    if (kind == USE_PAGE && !shared_word_has_slot(c->g, shared_ref_word(c->g, page), slot) &&
        use_load(&entry->use) == use)
        fail(c, "I17", "slot %llu is page %llx's, which has it no more", (ull)slot, (ull)page.value);
    else if (kind != USE_PAGE && kind != USE_FREE && kind != USE_RETIRED && !is_in_hand(c, use))
        fail(c, "I17", "slot %llu is in the hand of a member that is not there: %llx", (ull)slot, (ull)use);
}

static void check_table(check *c, uint64_t at, uint64_t entries, size_t size, void (*check_one)(check *, uint64_t)) {
    uint64_t end = at + entries * size, from = at, first, last;
    for (; commons_touched(&c->g->commons, from, end, &first, &last); from = last)
        for (uint64_t i = (first - at) / size; i < (last - at) / size; i++)
            check_one(c, i);
}

/* ---- chunks ---- */

static void check_chunk(check *c, uint64_t chunk) {
    uint32_t owner = atomic_load(&commons_chunks(&c->g->commons)[chunk]);
    if (owner == CHUNK_FREE || owner == CHUNK_SHARED)
        return;
    if (!members_alive(c->g, (member_id){(uint16_t)owner}))
        fail(c, "I18", "chunk %llu is of a member that is not there: %x", (ull)chunk, (unsigned)owner);
}

int group_check(group *g, uswap_error *err) {
    const commons_header *head = commons_head(&g->commons);
    check c = {.g = g, .err = err};
    for (uint32_t index = 0; index < OBJECTS_MAX; index++)
        check_object(&c, index);
    check_table(&c, head->frames_at, head->frames, sizeof(shared_frame), check_frame);
    check_table(&c, head->slots_at, head->slots_max, sizeof(shared_slot), check_slot);
    for (uint64_t chunk = 0; chunk < head->chunks; chunk++)
        check_chunk(&c, chunk);
    return c.failed ? USWAP_E_CORRUPT : 0;
}
