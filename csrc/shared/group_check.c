/*
 * group_check.c - the invariants of a group (README, I15 to I19) over all words of the commons, beside members that are at work.
 *
 * Words that must agree are compared while they hold still: a page, its frame and its slot under the page's lock; else by words that cannot come
 * back once they have changed (README, The check). What a member has in hand is passed over; once it has no place any more, it is an error.
 */
#include "base/findings.h"
#include "shared/group.h"
#include "shared/mend.h"
#include "shared/use_word.h"

typedef struct {
    group *g;
    findings found;
} check;

typedef unsigned long long ull;

static uint32_t chunk_word_of(const check *c, uint64_t frame) {
    uint64_t chunk = frame / commons_head(&c->g->commons)->chunk_frames;
    return atomic_load(&commons_chunks(&c->g->commons)[chunk]);
}

static bool is_shared(uint32_t chunk_word) {
    return chunk_word == CHUNK_SHARED || (chunk_word & CHUNK_DRAINING);
}

static bool is_claimed(uint64_t use) {
    use_kind kind = use_kind_of(use);
    return kind == USE_CLAIMED || kind == USE_LEAVING || kind == USE_GOING;
}

/* Of the dead, until what they have left is mended. */
static bool has_place(const check *c, member_id id) {
    uint64_t state = atomic_load(&group_entry(c->g, id)->state);
    return member_equal(member_id_of(state), id) && member_state_of(state) != MEMBER_FREE;
}

static bool is_in_hand(const check *c, uint64_t use) {
    return is_claimed(use) && has_place(c, use_member_of(use));
}

/* A life has its id alone: a word that names one, and is still the same after that one was found to have no place, is nobody's. */
static void check_hand(check *c, const use_word *at, uint64_t use, const char *invariant, const char *what,
                       uint64_t number) {
    if (!is_in_hand(c, use) && use_load(at) == use)
        findings_add(&c->found, invariant, "%s %llu is in the hand of a member that is not there: %llx", what,
                     (ull)number, (ull)use);
}

/* ---- pages ---- */

/* An eviction that was broken off lets the kept slot go later, without the page's lock: until then the slot is in its member's hand. Once it has, the frame
 * names it no more, and under the page's lock nothing names another. */
static void check_kept_slot(check *c, const shared_frame *entry, uint64_t frame, shared_ref page) {
    uint64_t use = use_load(&entry->use), slot = use_field_of(use);
    if (slot == 0 || slot_table_is_of(c->g, slot - 1, page))
        return;
    bool in_hand = slot <= commons_head(&c->g->commons)->slots_max &&
                   is_in_hand(c, use_load(&commons_slots(&c->g->commons)[slot - 1].use));
    if (!in_hand && use_load(&entry->use) == use)
        findings_add(&c->found, "I17", "frame %llu keeps slot %llu, which is not its page's", (ull)frame,
                     (ull)(slot - 1));
}

/* Context: the page is locked by this member. */
static void check_frame_of(check *c, shared_ref page, uint64_t frame) {
    const commons_header *head = commons_head(&c->g->commons);
    if (frame >= head->frames) {
        findings_add(&c->found, "I16", "page %llx is in frame %llu of %llu", (ull)page.value, (ull)frame,
                     (ull)head->frames);
        return;
    }
    const shared_frame *entry = &commons_frames(&c->g->commons)[frame];
    uint64_t use = use_load(&entry->use);
    uint32_t owner = chunk_word_of(c, frame);
    bool going = use_kind_of(use) == USE_GOING && is_in_hand(c, use); /* who has it so has not looked at the page yet */
    bool wrong = (use_kind_of(use) != USE_PAGE && !going) || atomic_load(&entry->page) != page.value;
    if (wrong && use_load(&entry->use) == use) /* but for who had it GOING, and has looked since */
        findings_add(&c->found, "I16", "page %llx is in frame %llu, which says %llx of page %llx", (ull)page.value,
                     (ull)frame, (ull)use, (ull)atomic_load(&entry->page));
    if (!is_shared(owner))
        findings_add(&c->found, "I18", "frame %llu has a page, and its chunk is not shared: %x", (ull)frame,
                     (unsigned)owner);
    check_kept_slot(c, entry, frame, page);
}

/* Context: the page is locked by this member. */
static void check_locked_page(check *c, shared_ref page, uint64_t word) {
    shared_state state = shared_state_of(word);
    uint64_t field = shared_field_of(word);
    if (state == SHARED_RESIDENT)
        check_frame_of(c, page, field);
    else if (state == SHARED_SWAPPED && !slot_table_is_of(c->g, field, page))
        findings_add(&c->found, "I17", "page %llx has its contents in slot %llu, which is not its own", (ull)page.value,
                     (ull)field);
    else if (state >= SHARED_LEAVING)
        findings_add(&c->found, "I15", "page %llx has no state: %llx", (ull)page.value, (ull)word);
}

/* Of a page that could not be locked. */
static void check_hand_of_page(check *c, shared_ref page, shared_word *at) {
    uint64_t word = shared_load(at);
    if (shared_is_in_hand(word) && !has_place(c, shared_member_of(word)) &&
        ((shared_load(at) ^ word) & ~SHARED_WAITERS) == 0)
        findings_add(&c->found, "I15", "page %llx is in the hand of member %x, who is not there: %llx", (ull)page.value,
                     shared_member_of(word).value, (ull)word);
}

static void check_page(check *c, shared_ref page, shared_word *at) {
    page_lock lock;
    if (shared_load(at) == 0)
        return;
    if (!shared_ref_lock(c->g, page, &lock)) {
        check_hand_of_page(c, page, at);
        return;
    }
    if (lock.word)
        check_locked_page(c, page, shared_load(lock.word));
    shared_ref_unlock(c->g, &lock);
}

/* Behind its end there is nothing: looked at again after the word, for who has made it longer meanwhile. */
static void check_rest(check *c, uint32_t index, uint64_t state) {
    const object_entry *object = group_object(c->g, index);
    uint64_t at = atomic_load(&object->words), from = at + object_pages(object) * sizeof(shared_word), first, last;
    uint64_t end = at + atomic_load(&object->words_bytes);
    shared_word *words = commons_at(&c->g->commons, at);
    for (; commons_touched(&c->g->commons, from, end, &first, &last); from = last)
        for (uint64_t page = (first - at) / sizeof(shared_word); page < (last - at) / sizeof(shared_word); page++)
            if (!shared_is_nothing(shared_load(&words[page])) && page >= object_pages(object) &&
                atomic_load(&object->state) == state)
                findings_add(&c->found, "I19", "page %llu of object %u is behind its end, and %llx", (ull)page, index,
                             (ull)shared_load(&words[page]));
}

static void check_size(check *c, uint32_t index, uint64_t state) {
    const object_entry *object = group_object(c->g, index);
    uint64_t resize = atomic_load(&object->resize);
    if (resize != 0 && !has_place(c, resize_member_of(resize)) && atomic_load(&object->resize) == resize)
        findings_add(&c->found, "I19", "the size of object %u is being changed by who is not there: %llx", index,
                     (ull)resize);
    check_rest(c, index, state);
}

static void check_object(check *c, uint32_t index) {
    const object_entry *object = group_object(c->g, index);
    uint64_t state = atomic_load(&object->state), at = atomic_load(&object->words), first, last;
    if (object_state_of(state) != OBJECT_LIVE && object_state_of(state) != OBJECT_DYING)
        return;
    check_size(c, index, state);
    shared_word *words = commons_at(&c->g->commons, at);
    uint64_t end = at + object_pages(object) * sizeof(shared_word), from = at;
    for (; commons_touched(&c->g->commons, from, end, &first, &last); from = last)
        for (uint64_t page = (first - at) / sizeof(shared_word); page < (last - at) / sizeof(shared_word); page++)
            check_page(c, shared_ref_make(index, object_generation_of(state), page), &words[page]);
}

/* ---- frames, slots ---- */

/* A frame that is RETIRED, or not, as its chunk must not have it. The chunk's word may come back to what it was, but not without another emptying
 * in between: these are counted, and RETIRED says which one it is of. */
static void check_chunk_of(check *c, uint64_t frame, const shared_frame *entry) {
    const _Atomic uint64_t *drains = &commons_head(&c->g->commons)->drains;
    uint64_t drained = atomic_load(drains), use = use_load(&entry->use), page = atomic_load(&entry->page);
    uint32_t owner = chunk_word_of(c, frame);
    bool retired = use_kind_of(use) == USE_RETIRED;
    /* A frame of a chunk that has never been shared has never been touched. */
    bool wrong = retired ? owner == CHUNK_SHARED : (use != 0 || page != 0) && !is_shared(owner);
    bool still = use_load(&entry->use) == use && chunk_word_of(c, frame) == owner && atomic_load(drains) == drained;
    if (wrong && still)
        findings_add(&c->found, "I18", "frame %llu is %llx, and its chunk is %x", (ull)frame, (ull)use,
                     (unsigned)owner);
}

static void check_frame(check *c, uint64_t frame) {
    const shared_frame *entry = &commons_frames(&c->g->commons)[frame];
    uint64_t use = use_load(&entry->use);
    shared_ref page = {atomic_load(&entry->page)};
    page_lock lock;
    check_chunk_of(c, frame, entry);
    if (is_claimed(use))
        check_hand(c, &entry->use, use, "I16", "frame", frame);
    if (use_kind_of(use) != USE_PAGE || !shared_ref_lock(c->g, page, &lock))
        return;
    bool named = shared_word_has_frame(lock.word, frame);
    /* Looked at under the lock, or, of an object that is no more, after its word was not found: its name does not come again. */
    use = use_load(&entry->use);
    if (!named && use_kind_of(use) == USE_PAGE && atomic_load(&entry->page) == page.value)
        findings_add(&c->found, "I16", "frame %llu is page %llx's, which is not in it", (ull)frame, (ull)page.value);
    shared_ref_unlock(c->g, &lock);
}

/* Its page has lost it, and who discards that has not freed it yet: only his order names it. (Asked while it is PAGE: it is not any more before the order names
 * another.) */
static bool is_being_discarded(const check *c, uint64_t slot) {
    const commons_header *head = commons_head(&c->g->commons);
    for (unsigned i = 0; i < MEMBERS_MAX; i++)
        if (atomic_load(&head->members[i].order.slot) == slot + 1)
            return true;
    return false;
}

static void check_slot(check *c, uint64_t slot) {
    const shared_slot *entry = &commons_slots(&c->g->commons)[slot];
    uint64_t use = use_load(&entry->use);
    shared_ref page = {atomic_load(&entry->page)};
    page_lock lock;
    if (is_claimed(use))
        check_hand(c, &entry->use, use, "I17", "slot", slot);
    if (use_kind_of(use) != USE_PAGE || !shared_ref_lock(c->g, page, &lock))
        return;
    bool named = shared_word_has_slot(c->g, lock.word, slot);
    if (!named && !is_being_discarded(c, slot) && slot_table_is_of(c->g, slot, page))
        findings_add(&c->found, "I17", "slot %llu is page %llx's, which has it no more", (ull)slot, (ull)page.value);
    shared_ref_unlock(c->g, &lock);
}

static void check_table(check *c, uint64_t at, uint64_t entries, size_t size, void (*check_one)(check *, uint64_t)) {
    uint64_t end = at + entries * size, from = at, first, last;
    for (; commons_touched(&c->g->commons, from, end, &first, &last); from = last)
        for (uint64_t i = (first - at) / size; i < (last - at) / size; i++)
            check_one(c, i);
}

/* ---- chunks ---- */

/* Who leaves gives its chunks before. */
static void check_chunk(check *c, uint64_t chunk) {
    const _Atomic uint32_t *at = &commons_chunks(&c->g->commons)[chunk];
    uint32_t owner = atomic_load(at);
    if (owner == CHUNK_FREE || owner == CHUNK_SHARED)
        return;
    if (!has_place(c, (member_id){(uint16_t)owner}) && atomic_load(at) == owner)
        findings_add(&c->found, "I18", "chunk %llu is of a member that is not there: %x", (ull)chunk, (unsigned)owner);
}

int group_check(group *g, uswap_error *err) {
    const commons_header *head = commons_head(&g->commons);
    check c = {.g = g, .found = {.err = err}};
    for (uint32_t index = 0; index < OBJECTS_MAX; index++)
        check_object(&c, index);
    check_table(&c, head->frames_at, head->frames, sizeof(shared_frame), check_frame);
    check_table(&c, head->slots_at, head->slots_max, sizeof(shared_slot), check_slot);
    for (uint64_t chunk = 0; chunk < head->chunks; chunk++)
        check_chunk(&c, chunk);
    return c.found.failed ? USWAP_E_CORRUPT : 0;
}
