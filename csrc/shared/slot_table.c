/*
 * slot_table.c - shared slots: which are free, and which page's contents each of the others has.
 *
 * The use words are the truth. For each cluster there is a hint of how many are taken, with a count of its changes: a search passes over full
 * clusters by it. A hint can be wrong after a death (or a stop); who looks at all of a cluster puts it right, and when nothing is to be had by
 * the hints, all clusters are looked at, now and then. Nothing else may be said by them (group_info.c counts the words).
 */
#define _GNU_SOURCE
#include "base/failpoint.h"
#include "shared/group.h"
#include "shared/mend.h"
#include "shared/use_word.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#define TAKEN_MASK UINT32_C(0x1FF)
#define HINT_STEP UINT32_C(0x200)
/* How far a search for a cluster that is wholly free goes before the emptiest one so far must do. */
#define LOOK_AHEAD 1024U
#define LOOK_AGAIN_NS UINT64_C(10000000)
/* A page that keeps a slot takes another one while it is written: so many pages can be on their way at a time. */
#define SPARE_SLOTS UINT64_C(4096)
#define GROWTH_SLOTS UINT64_C(4096)

static shared_slot *slot_at(const group *g, uint64_t slot) {
    return &commons_slots(&g->commons)[slot];
}

static _Atomic uint32_t *cluster_hint(const group *g, uint64_t cluster) {
    return &commons_clusters(&g->commons)[cluster];
}

static void note(group *g, uint64_t cluster, int taken) {
    _Atomic uint32_t *hint = cluster_hint(g, cluster);
    uint32_t seen = atomic_load(hint), next;
    do {
        int now = (int)(seen & TAKEN_MASK) + taken;
        now = now < 0 ? 0 : MIN_OF(now, (int)COMMONS_CLUSTER_SLOTS);
        next = ((seen & ~TAKEN_MASK) + HINT_STEP) | (uint32_t)now;
    } while (!atomic_compare_exchange_weak(hint, &seen, next));
}

static uint64_t usable(const group *g) {
    return atomic_load(&commons_head(&g->commons)->usable_slots);
}

static bool is_free(const group *g, uint64_t slot) {
    return slot != 0 && slot != g->barrier_slot && use_kind_of(use_load(&slot_at(g, slot)->use)) == USE_FREE;
}

static bool claim_one(group *g, uint64_t slot) {
    uint64_t seen = use_load(&slot_at(g, slot)->use);
    if (!is_free(g, slot) || use_kind_of(seen) != USE_FREE ||
        !use_swap(&slot_at(g, slot)->use, &seen, use_make(USE_CLAIMED, g->self, 0)))
        return false;
    atomic_store(&slot_at(g, slot)->page, 0);
    FAILPOINT(slot_claimed);
    return true;
}

/* The first run from slot on, within its cluster. */
static uint32_t claim_run(group *g, uint64_t slot, uint32_t want, uint64_t *first) {
    uint64_t cluster = slot / COMMONS_CLUSTER_SLOTS, end = MIN_OF((cluster + 1) * COMMONS_CLUSTER_SLOTS, usable(g));
    uint32_t count = 0;
    for (; slot < end && count < want; slot++) {
        if (claim_one(g, slot)) {
            if (count++ == 0)
                *first = slot;
        } else if (count > 0) {
            break;
        }
    }
    if (count > 0) {
        note(g, cluster, (int)count);
        atomic_store(&commons_head(&g->commons)->slot_next, *first + count);
    }
    return count;
}

/* How many are taken, by looking at them; the hint then says so, if nothing has changed meanwhile. */
static uint32_t recount(group *g, uint64_t cluster) {
    uint64_t slot = cluster * COMMONS_CLUSTER_SLOTS, end = MIN_OF(slot + COMMONS_CLUSTER_SLOTS, usable(g));
    uint32_t seen = atomic_load(cluster_hint(g, cluster)), taken = 0;
    for (; slot < end; slot++)
        taken += !is_free(g, slot);
    if ((seen & TAKEN_MASK) != taken)
        atomic_compare_exchange_strong(cluster_hint(g, cluster), &seen, ((seen & ~TAKEN_MASK) + HINT_STEP) | taken);
    return taken;
}

static uint64_t slots_in(const group *g, uint64_t cluster) {
    return MIN_OF(COMMONS_CLUSTER_SLOTS, usable(g) - cluster * COMMONS_CLUSTER_SLOTS);
}

/* From cluster on: one without a taken slot, or the emptiest; clusters: there is none with a free one. */
static uint64_t choose_cluster(const group *g, uint64_t from, uint64_t clusters) {
    uint64_t best = clusters, most = 0;
    for (uint64_t turn = 0; turn < clusters && (turn < LOOK_AHEAD || best == clusters); turn++) {
        uint64_t cluster = (from + turn) % clusters, taken = atomic_load(cluster_hint(g, cluster)) & TAKEN_MASK;
        uint64_t slots = slots_in(g, cluster), vacant = slots > taken ? slots - taken : 0;
        if (vacant > most) {
            most = vacant;
            best = cluster;
        }
        if (vacant == COMMONS_CLUSTER_SLOTS)
            return cluster;
    }
    return best;
}

/* Nothing by the hints: they are put right. Return: whether there is something after all. */
static bool look_again(group *g, uint64_t clusters) {
    uint64_t now = clock_now_ns();
    if (now - atomic_load(&g->slots_looked_ns) < LOOK_AGAIN_NS)
        return false;
    atomic_store(&g->slots_looked_ns, now);
    bool any = false;
    for (uint64_t cluster = 0; cluster < clusters; cluster++)
        any |= recount(g, cluster) < slots_in(g, cluster);
    return any;
}

uint32_t slot_table_claim(group *g, uint32_t want, uint64_t *first) {
    uint64_t clusters = (usable(g) + COMMONS_CLUSTER_SLOTS - 1) / COMMONS_CLUSTER_SLOTS;
    uint64_t next = atomic_load(&commons_head(&g->commons)->slot_next);
    if (clusters == 0 || want == 0)
        return 0;
    /* On behind what was claimed last, if that cluster was wholly free when it was begun. */
    if (next % COMMONS_CLUSTER_SLOTS != 0 && next < usable(g) && is_free(g, next)) {
        uint32_t count = claim_run(g, next, want, first);
        if (count > 0)
            return count;
    }
    for (uint64_t turn = 0; turn <= clusters; turn++) {
        uint64_t cluster = choose_cluster(g, next / COMMONS_CLUSTER_SLOTS, clusters);
        if (cluster == clusters)
            break;
        uint32_t count = claim_run(g, cluster * COMMONS_CLUSTER_SLOTS, want, first);
        if (count > 0)
            return count;
        recount(g, cluster);
    }
    if (!look_again(g, clusters))
        return 0;
    uint64_t cluster = choose_cluster(g, 0, clusters);
    return cluster == clusters ? 0 : claim_run(g, cluster * COMMONS_CLUSTER_SLOTS, want, first);
}

static void set_free(group *g, uint64_t slot, use_kind from, member_id member) {
    uint64_t seen = use_load(&slot_at(g, slot)->use);
    do {
        INVARIANT(I17, use_is(seen, from, member));
    } while (!use_swap(&slot_at(g, slot)->use, &seen, use_make(USE_FREE, MEMBER_NONE, 0)));
    FAILPOINT(slot_freed);
    note(g, slot / COMMONS_CLUSTER_SLOTS, -1);
}

void slot_table_release(group *g, uint64_t slot) {
    set_free(g, slot, USE_CLAIMED, g->self);
}

void slot_table_condemn(group *g, uint64_t slot) {
    INVARIANT(I17, use_step(&slot_at(g, slot)->use, USE_CLAIMED, g->self, USE_RETIRED, MEMBER_NONE));
}

void slot_table_aim(group *g, uint64_t slot, shared_ref page) {
    INVARIANT(I17, use_is(use_load(&slot_at(g, slot)->use), USE_CLAIMED, g->self));
    atomic_store(&slot_at(g, slot)->page, page.value);
}

uint64_t slot_table_seen(const group *g, uint64_t slot) {
    return use_load(&slot_at(g, slot)->use);
}

void slot_table_prepare(group *g, uint64_t slot, const uint8_t hash[16], uint64_t clock) {
    INVARIANT(I17, use_is(slot_table_seen(g, slot), USE_CLAIMED, g->self));
    memcpy(slot_at(g, slot)->hash, hash, sizeof slot_at(g, slot)->hash);
    use_set_field(&slot_at(g, slot)->use, clock);
}

bool slot_table_claim_kept(group *g, uint64_t slot, uint64_t seen, uint64_t clock) {
    bool done =
        use_kind_of(seen) == USE_PAGE && use_swap(&slot_at(g, slot)->use, &seen, use_make(USE_CLAIMED, g->self, clock));
    FAILPOINT(slot_kept);
    return done;
}

void slot_table_settle(group *g, uint64_t slot, uint64_t seen, member_id member) {
    if (use_is(seen, USE_CLAIMED, member))
        use_swap(&slot_at(g, slot)->use, &seen, use_make(USE_PAGE, MEMBER_NONE, use_field_of(seen)));
}

bool slot_table_begin_leave_seen(group *g, uint64_t slot, uint64_t seen) {
    bool done = use_kind_of(seen) == USE_PAGE &&
                use_swap(&slot_at(g, slot)->use, &seen, use_make(USE_LEAVING, g->self, use_field_of(seen)));
    FAILPOINT(slot_leaving);
    return done;
}

bool slot_table_begin_leave(group *g, uint64_t slot) {
    bool done = use_step(&slot_at(g, slot)->use, USE_PAGE, MEMBER_NONE, USE_LEAVING, g->self);
    FAILPOINT(slot_leaving);
    return done;
}

void slot_table_end_leave(group *g, uint64_t slot) {
    set_free(g, slot, USE_LEAVING, g->self);
}

bool slot_table_is_of(const group *g, uint64_t slot, shared_ref page) {
    return slot < commons_head(&g->commons)->slots_max && use_kind_of(use_load(&slot_at(g, slot)->use)) == USE_PAGE &&
           atomic_load(&slot_at(g, slot)->page) == page.value;
}

uint64_t slot_table_kept(const group *g, uint32_t frame) {
    const shared_frame *entry = &commons_frames(&g->commons)[frame];
    uint64_t slot = use_field_of(use_load(&entry->use));
    return slot > 0 && slot_table_is_of(g, slot - 1, (shared_ref){atomic_load(&entry->page)}) ? slot : 0;
}

uint64_t slot_table_begin_leave_kept(group *g, uint32_t frame) {
    uint64_t kept = slot_table_kept(g, frame), use = kept > 0 ? slot_table_seen(g, kept - 1) : 0;
    return kept > 0 && kept == slot_table_kept(g, frame) && slot_table_begin_leave_seen(g, kept - 1, use) ? kept : 0;
}

/* ---- after a death ---- */

void slot_table_seize(group *g, uint64_t slot, shared_ref page) {
    use_word *use = &slot_at(g, slot)->use;
    atomic_store(&slot_at(g, slot)->page, page.value);
    uint64_t seen = use_load(use);
    while (!use_swap(use, &seen, use_make(USE_PAGE, MEMBER_NONE, use_field_of(seen)))) {
    }
}

bool slot_table_free_unnamed(group *g, uint64_t slot) {
    /* First: whoever has made the page ZERO may free the slot meanwhile, and another page have it then. */
    uint64_t use = slot_table_seen(g, slot);
    shared_ref page = {atomic_load(&slot_at(g, slot)->page)};
    page_lock lock;
    if (use_kind_of(use) != USE_PAGE)
        return true;
    if (!shared_ref_lock(g, page, &lock))
        return false;
    if (slot_table_is_of(g, slot, page) && !shared_word_has_slot(g, lock.word, slot) &&
        slot_table_begin_leave_seen(g, slot, use))
        slot_table_end_leave(g, slot);
    shared_ref_unlock(g, &lock);
    return true;
}

/* What its order names: no word may. */
static bool mend_unnamed(group *g, member_id dead) {
    uint64_t named = atomic_load(&group_entry(g, dead)->order.slot);
    return named == 0 || named > commons_head(&g->commons)->slots_max || slot_table_free_unnamed(g, named - 1);
}

/* The page's word is locked by this member, or there is none. Never while a write of the dead may be under way: not quiet. */
static void mend_locked(group *g, uint64_t slot, const page_lock *lock, member_id dead, bool quiet) {
    use_word *use = &slot_at(g, slot)->use;
    uint64_t seen = use_load(use);
    if (!use_is_held_by(seen, dead))
        return;
    bool swapped = lock->word && shared_state_of(shared_load(lock->word)) == SHARED_SWAPPED;
    if (swapped && shared_word_has_slot(g, lock->word, slot)) {
        use_swap(use, &seen, use_make(USE_PAGE, MEMBER_NONE, use_field_of(seen))); /* the only copy */
        return;
    }
    /* The page is in its frame: nobody knows what came of the slot. */
    if (shared_word_has_slot(g, lock->word, slot))
        use_drop_field(&commons_frames(&g->commons)[shared_field_of(shared_load(lock->word))].use, slot + 1);
    if (use_swap(use, &seen, quiet ? use_make(USE_FREE, MEMBER_NONE, 0) : use_make(USE_RETIRED, MEMBER_NONE, 0)) &&
        quiet)
        note(g, slot / COMMONS_CLUSTER_SLOTS, -1);
}

static bool mend(group *g, uint64_t slot, member_id dead, bool quiet) {
    shared_ref page = {atomic_load(&slot_at(g, slot)->page)};
    page_lock lock;
    if (!shared_ref_lock(g, page, &lock))
        return false;
    mend_locked(g, slot, &lock, dead, quiet);
    shared_ref_unlock(g, &lock);
    return true;
}

bool slot_table_of_dead(group *g, member_id dead, bool quiet) {
    const commons_header *head = commons_head(&g->commons);
    uint64_t end = head->slots_at + head->slots_max * sizeof(shared_slot), from = head->slots_at, first, last;
    bool all = mend_unnamed(g, dead);
    for (; commons_touched(&g->commons, from, end, &first, &last); from = last)
        for (uint64_t slot = (first - head->slots_at) / sizeof(shared_slot);
             slot < (last - head->slots_at) / sizeof(shared_slot); slot++)
            if (use_is_held_by(use_load(&slot_at(g, slot)->use), dead) && !mend(g, slot, dead, quiet))
                all = false;
    return all;
}

/* ---- room on the disk ---- */

/* Of one that is getting longer, what it will have. */
static uint64_t promised_to(const object_entry *object) {
    return MAX_OF(object_pages(object), resize_pages_of(atomic_load(&object->resize)));
}

uint64_t slot_table_promised(const group *g) {
    uint64_t pages = 0;
    for (uint32_t i = 0; i < OBJECTS_MAX; i++)
        if (object_state_of(atomic_load(&group_object(g, i)->state)) != OBJECT_FREE)
            pages += promised_to(group_object(g, i));
    return pages;
}

/* Blocks for the slots [from, to). Where the file system has no such call, the file grows as it is written. */
static int allocate(group *g, uint64_t from, uint64_t to) {
    int failure = FAILPOINT(shared_fallocate);
    if (failure != 0)
        return failure;
    while (fallocate(g->swap_fd, 0, (off_t)(from << PAGE_SHIFT), (off_t)((to - from) << PAGE_SHIFT)) != 0) {
        if (errno == EOPNOTSUPP)
            return 0; /* no ftruncate: of two that do it, the later one might shorten it */
        if (errno != EINTR)
            return -errno;
    }
    return 0;
}

int slot_table_reserve(group *g) {
    commons_header *head = commons_head(&g->commons);
    uint64_t promised = slot_table_promised(g);
    if (promised > head->slots_max - SPARE_SLOTS - GROWTH_SLOTS)
        return -ENOSPC;
    uint64_t want = (promised + SPARE_SLOTS + GROWTH_SLOTS - 1) / GROWTH_SLOTS * GROWTH_SLOTS, have = usable(g);
    if (want <= have)
        return 0;
    /* Two that grow it at once ask for the same blocks, and get them. */
    int status = allocate(g, have, want);
    while (status == 0 && have < want && !atomic_compare_exchange_weak(&head->usable_slots, &have, want)) {
    }
    return status;
}
