/*
 * shared_in.c - shared pages that come in: claims, reads, and how they end.
 *
 * All of it is the share thread's: it alone reads, and so nobody else of this member ends a READING page.
 */
#define _GNU_SOURCE
#include "shared/shared_core.h"

#include "base/failpoint.h"
#include "fault/uffd.h"
#include "pool.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

/* A window of neighbours, in pages; each block of it begins with a marker (read_ahead.h). */
#define WINDOW_MAX 2048U
/* Read-ahead may fill at most this part of the frames with one window, and lanes that part. */
#define WINDOW_SHARE 16
#define LANES_SHARE 2
/* So few pages that nobody waits for yet may come by one request with the one that is waited for. */
#define SHORT_RUN 16

/* ---- frames and memory ---- */

/* ahead: only while others find some too. Return: whether there is one at hand. */
static bool have_frame(group *g, uint32_t want, bool ahead) {
    share_state *s = share_of(g);
    if (s->frames_left > 0)
        return true;
    uint64_t used = shared_used_frames(&g->commons);
    uint64_t keep = atomic_load(&s->frames_low) / 4;
    if (ahead && used + keep >= atomic_load(&s->frames_total)) {
        atomic_store(&s->cut_ns, clock_now_ns());
        shared_out_wake(g);
        return false;
    }
    s->frames_left = frames_claim(g, MIN_OF(MAX_OF(want, 1U), IN_UNIT_PAGES), s->frames);
    return s->frames_left > 0;
}

static bool next_frame(group *g, uint32_t want, bool ahead, uint32_t *frame) {
    share_state *s = share_of(g);
    bool found = have_frame(g, want, ahead);
    if (found)
        *frame = s->frames[--s->frames_left];
    return found;
}

void shared_in_give_back_frames(group *g) {
    share_state *s = share_of(g);
    while (s->frames_left > 0)
        frames_release(g, s->frames[--s->frames_left]);
}

static read_unit *free_unit(share_state *s, bool single) {
    uint32_t first = single ? IN_UNITS : 0, end = single ? IN_UNITS + IN_SINGLES : s->units;
    for (uint32_t i = first; i < end; i++)
        if (!s->unit[i].busy)
            return &s->unit[i];
    return NULL;
}

static void send_unit(group *g, read_unit *unit) {
    share_state *s = share_of(g);
    io_request *request = io_request_get(&g->read_io, IO_READ, g->swap_fd, swap_entry_make(0, unit->first_slot));
    INVARIANT(I6, request != NULL); /* as many requests as units */
    io_request_fill(request, unit->memory, unit->pages);
    s->unit_of[request - g->read_io.requests] = (uint8_t)(unit - s->unit);
    FAILPOINT(shared_claimed);
    io_submit(&g->read_io, request);
}

void shared_in_send(group *g) {
    share_state *s = share_of(g);
    if (s->growing)
        send_unit(g, s->growing);
    s->growing = NULL;
    io_flush(&g->read_io);
}

/* The read that this page joins, or one of its own. NULL: there is no memory for it just now. */
static read_unit *unit_for(group *g, shared_region *r, uint64_t slot, bool single) {
    share_state *s = share_of(g);
    read_unit *unit = s->growing;
    if (!single && unit && unit->r == r && unit->pages < IN_UNIT_PAGES && slot == unit->first_slot + unit->pages)
        return unit;
    read_unit *fresh = free_unit(s, single);
    if (!fresh && !s->in_pieces)
        fresh = free_unit(s, !single);
    if (!fresh)
        return NULL;
    fresh->alone = fresh->single || single;
    if (unit && !fresh->alone)
        send_unit(g, unit);
    if (!fresh->alone)
        s->growing = fresh;
    atomic_fetch_add(&r->references, 1);
    fresh->busy = true;
    fresh->r = r;
    fresh->pages = 0;
    fresh->first_slot = slot;
    return fresh;
}

/* ---- starting ---- */

/* What a page is read for: somebody waits for it, and for those behind it soon (FIRST: one request for all), or not; or it is read ahead. */
typedef enum { READ_ALONE, READ_FIRST, READ_AHEAD, READ_MARKER } read_reason;

/* SWAPPED and locked by us => READING, still locked. */
static shared_result claim(group *g, shared_region *r, size_t page, read_reason reason, uint32_t want) {
    share_state *s = share_of(g);
    shared_word *word = &r->words[page];
    uint64_t slot = shared_field_of(shared_load(word));
    uint32_t frame;
    if (!next_frame(g, want, reason >= READ_AHEAD, &frame))
        return SHARED_NO_FRAME;
    read_unit *unit = unit_for(g, r, slot, reason == READ_ALONE);
    if (!unit) {
        s->frames[s->frames_left++] = frame;
        return SHARED_AGAIN;
    }
    shared_ref ref = region_ref(r, page);
    frame_table_aim(g, frame, ref, slot + 1);
    shared_set(word, g->self, SHARED_READING, frame, heat_kept(shared_load(word)));
    frame_table_settle(g, frame, ref, slot + 1);
    unit->page[unit->pages] = page;
    unit->frame[unit->pages] = frame;
    unit->markers[unit->pages++] = reason == READ_MARKER;
    if (unit->alone)
        send_unit(g, unit);
    return SHARED_DONE;
}

static void unlock(group *g, shared_region *r, size_t page) {
    if (shared_unlock(&r->words[page], g->self))
        shared_wake(g, r, page, 1);
}

/* Locks a page that is out, or is being read by who is stopped. */
static bool lock_absent(group *g, shared_word *word) {
    shared_state state = shared_state_of(shared_load(word));
    if (state == SHARED_READING)
        return shared_break_read(g, word);
    return state == SHARED_SWAPPED && shared_try_lock(word, g->self, false);
}

/* Return: false when frames or memory have run out. */
static bool read_page(group *g, shared_region *r, size_t page, read_reason reason, uint32_t want) {
    shared_word *word = &r->words[page];
    if (!lock_absent(g, word))
        return true;
    bool go_on = true;
    if (shared_state_of(shared_load(word)) == SHARED_SWAPPED)
        go_on = claim(g, r, page, reason, want) == SHARED_DONE;
    unlock(g, r, page);
    return go_on;
}

size_t shared_in_range(group *g, shared_region *r, size_t page, size_t pages) {
    size_t at = 0;
    while (at < pages && read_page(g, r, page + at, READ_AHEAD, (uint32_t)MIN_OF(pages - at, (size_t)IN_UNIT_PAGES)))
        at++;
    return at;
}

/* Streams that have come to speed read whole blocks. Return: the plan, up to the end of its last block. */
static read_ahead_plan in_blocks(read_ahead_plan plan) {
    int64_t last = plan.first + plan.stride * (int64_t)(plan.count - 1);
    if (!plan.wide || last < 0)
        return plan;
    uint32_t within = (uint32_t)((uint64_t)last % BLOCK_PAGES);
    plan.count += plan.stride > 0 ? BLOCK_PAGES - 1 - within : within;
    return plan;
}

/* Neighbours, in ascending order whatever the reader's: the disk's. on: with what is left of a window. Return: how many steps were done. */
static uint32_t read_neighbours(group *g, shared_region *r, const read_ahead_plan *plan, bool on) {
    bool up = plan->stride > 0;
    int64_t low = up ? plan->first : plan->first - (int64_t)plan->count + 1, high = low + (int64_t)plan->count - 1;
    low = MAX_OF(low, INT64_C(0));
    high = MIN_OF(high, (int64_t)r->pages - 1);
    uint32_t done = plan->count;
    share_of(g)->in_pieces = plan->wide || plan->young; /* what is read alone is for those who wait */
    for (int64_t page = low; page <= high && done == plan->count; page++) {
        bool edge = (uint64_t)page % BLOCK_PAGES == (up ? 0 : BLOCK_PAGES - 1);
        bool marker = read_ahead_marks(plan, page, page == plan->first && !on) || (plan->wide && edge);
        if (!read_page(g, r, (size_t)page, marker ? READ_MARKER : READ_AHEAD,
                       (uint32_t)MIN_OF(high - page + 1, (int64_t)IN_UNIT_PAGES)))
            done = up ? (uint32_t)(page - low) : 0;
    }
    share_of(g)->in_pieces = false;
    return done;
}

static uint32_t read_strided(group *g, shared_region *r, const read_ahead_plan *plan) {
    for (uint32_t step = 0; step < plan->count; step++)
        for (uint32_t lane = 0; lane < plan->width; lane++) {
            int64_t page = plan->first + plan->stride * (int64_t)step + (int64_t)lane;
            if (page >= 0 && (uint64_t)page < r->pages &&
                !read_page(g, r, (size_t)page, step + lane == 0 ? READ_MARKER : READ_AHEAD, 1))
                return step;
        }
    return plan->count;
}

/* Where it is memory that is short, a reader who must ask for the rest would ask for a few pages at a time, by as many faults. Return: false: it is
 * another case. */
static bool keep_rest(group *g, shared_region *r, const read_ahead_plan *plan, uint32_t done) {
    share_state *s = share_of(g);
    if (s->rest_of || !plan->wide || plan->stride != 1 || free_unit(s, false))
        return false;
    atomic_fetch_add(&r->references, 1);
    s->rest_of = r;
    s->rest = *plan;
    s->rest.first += done;
    s->rest.count -= done;
    return true;
}

/* A read has ended: there is memory again. */
static void go_on(group *g) {
    share_state *s = share_of(g);
    shared_region *r = s->rest_of;
    if (!r)
        return;
    uint32_t done = atomic_load(&r->live) ? read_neighbours(g, r, &s->rest, true) : s->rest.count;
    bool more = done < s->rest.count && !free_unit(s, false);
    if (done < s->rest.count && !more) /* no frames: whoever comes there asks again */
        read_ahead_asked(&r->ahead, s->rest, done);
    s->rest.first += done;
    s->rest.count -= done;
    if (more)
        return;
    s->rest_of = NULL;
    shared_region_put(r);
}

static read_ahead_plan plan_of(group *g, shared_region *r, read_ahead_seen fault) {
    uint32_t advice = atomic_load_explicit(&r->advice, memory_order_relaxed);
    uint64_t total = atomic_load(&share_of(g)->frames_total);
    uint64_t window = MIN_OF((uint64_t)MIN_OF(WINDOW_MAX, g->pool->options.read_ahead_pages), total / WINDOW_SHARE);
    if (advice == USWAP_ADVICE_RANDOM)
        return (read_ahead_plan){0};
    read_ahead_bounds bounds = {.window = (uint32_t)window, .pages = r->pages, .frames = total / LANES_SHARE};
    fault.known |= READ_AHEAD_RUNS | (advice == USWAP_ADVICE_SEQUENTIAL ? READ_AHEAD_SEQUENTIAL : 0U);
    return read_ahead_fault(&r->ahead, fault, bounds);
}

static void carry_out(group *g, shared_region *r, read_ahead_plan plan) {
    if (plan.count == 0)
        return;
    read_ahead_plan whole = in_blocks(plan);
    if (whole.count != plan.count)
        read_ahead_asked(&r->ahead, plan, whole.count);
    bool near = plan.stride == 1 || plan.stride == -1;
    uint32_t done = near ? read_neighbours(g, r, &whole, false) : read_strided(g, r, &whole);
    if (done < whole.count && !keep_rest(g, r, &whole, done))
        read_ahead_asked(&r->ahead, whole, done);
}

void shared_in_ahead(group *g, shared_region *r, read_ahead_seen fault) {
    carry_out(g, r, plan_of(g, r, fault));
}

/* Whether a page that is waited for can be read now. A fault that is tried again later is to be told to read-ahead once. */
static shared_result is_ready(group *g) {
    share_state *s = share_of(g);
    if (!have_frame(g, 1, false))
        return SHARED_NO_FRAME;
    return free_unit(s, true) || free_unit(s, false) ? SHARED_DONE : SHARED_AGAIN;
}

shared_result shared_in_start(group *g, shared_region *r, size_t page) {
    read_ahead_plan plan = {0};
    shared_result result = is_ready(g);
    if (result == SHARED_DONE) {
        plan = plan_of(g, r, (read_ahead_seen){.page = page, .known = READ_AHEAD_ABSENT});
        bool behind = plan.young && plan.first == (int64_t)page + 1;
        bool short_run = behind && plan.count > 0 && plan.count <= SHORT_RUN;
        result = claim(g, r, page, short_run ? READ_FIRST : READ_ALONE, 1);
    }
    unlock(g, r, page);
    carry_out(g, r, plan);
    return result;
}

/* ---- ending ---- */

static bool is_right(group *g, uint64_t slot, void *memory) {
    uint8_t found[16];
    FAILPOINT_DATA(shared_hash, memory, PAGE_BYTES);
    shared_hash(g, memory, found);
    return memcmp(found, commons_slots(&g->commons)[slot].hash, sizeof found) == 0;
}

/* Return: 0; -EBADMSG: its checksum is wrong; -errno: it could not be read. */
static int read_again(group *g, uint64_t slot, void *memory) {
    int status = FAILPOINT(shared_one);
    if (status == 0)
        status = io_page(&g->read_io, IO_READ, g->swap_fd, memory, swap_entry_make(0, slot));
    if (status == 0 && is_right(g, slot, memory))
        return 0;
    STAT_ADD(g->pool, read_errors, status != 0);
    STAT_ADD(g->pool, hash_errors, status == 0);
    return status != 0 ? status : -EBADMSG;
}

/* Locks the page to end its read, if it is this one's still: others break off the reads of who seems to be stopped, and whatever has become
 * of the page since, this thread may have begun to read it anew. No other thread makes it READING by this member. */
static bool lock_read(group *g, const read_unit *unit, uint32_t i) {
    shared_word *word = &unit->r->words[unit->page[i]];
    uint32_t frame = unit->frame[i];
    return shared_field_of(shared_load(word)) == frame && frame_table_slot(g, frame) == unit->first_slot + i + 1 &&
           shared_lock_own(word, g->self, SHARED_READING);
}

/* Locked, READING => SWAPPED again: there was no memory for it. */
static void take_back(group *g, shared_region *r, size_t page, uint32_t frame, uint64_t slot) {
    frame_table_begin_leave(g, frame);
    shared_set(&r->words[page], g->self, SHARED_SWAPPED, slot, heat_kept(shared_load(&r->words[page])));
    shared_punch(r->fd, page, 1);
    frame_table_end_leave(g, frame);
    frames_release(g, frame);
    bool waiters = shared_unlock(&r->words[page], g->self);
    (void)waiters;
    shared_wake(g, r, page, 1);
}

/* Somebody else has broken the read off. Who does that wakes whoever has said that he waits (WAITERS); those whose fault began it have not: they look
 * again. */
static void end_in_vain(group *g, const read_unit *unit, uint32_t i) {
    uffd_wake(g->uffd, shared_address(unit->r, unit->page[i]), PAGE_BYTES);
}

/* Whoever touches it faults, and is told by a thread of its own process (shared_fault.c): only that one knows that the handler of SIGBUS is there. */
static void lose(group *g, const read_unit *unit, uint32_t i, int status) {
    shared_region *r = unit->r;
    size_t page = unit->page[i];
    uint32_t frame = unit->frame[i];
    uint64_t slot = unit->first_slot + i;
    if (!lock_read(g, unit, i)) {
        end_in_vain(g, unit, i);
        return;
    }
    frame_table_begin_leave(g, frame);
    slot_table_begin_leave(g, slot);
    shared_set(&r->words[page], g->self, SHARED_POISONED, (uint64_t)-status, 0);
    frame_table_end_leave(g, frame);
    frames_release(g, frame);
    slot_table_end_leave(g, slot);
    bool waiters = shared_unlock(&r->words[page], g->self);
    (void)waiters;
    shared_wake(g, r, page, 1);
}

/* The contents of neighbours go into the file, but of those that are there, and mapped, already. */
static bool fill(const read_unit *unit, uint32_t first, uint32_t count, const unsigned char *contents, size_t mapped) {
    size_t bytes = (count - mapped) << PAGE_SHIFT;
    off_t at = (off_t)((uint64_t)(unit->page[first] + mapped) << PAGE_SHIFT);
    bool done = bytes == 0 || pwrite(unit->r->fd, contents + (mapped << PAGE_SHIFT), bytes, at) == (ssize_t)bytes;
    FAILPOINT(shared_filled);
    return done;
}

/* For the policy, if there is one that wants to know: after how many evictions it has come back. */
static void note_return(group *g, const read_unit *unit, uint32_t i) {
    uint64_t since = slot_eviction(g, unit->first_slot + i),
             clock = atomic_load(&commons_head(&g->commons)->eviction_clock);
    uint64_t distance = since > 0 ? MIN_OF(clock - (since - 1), (uint64_t)REFAULT_NEVER - 1) : REFAULT_NEVER;
    shared_policy_note(g, unit->r, unit->page[i], unit->frame[i], (uint32_t)distance);
}

/* Locked, READING => RESIDENT; sealed, but where somebody wants the page for any access: he has said so, and looks when it is unlocked. Return: whether
 * all are as seal says. */
static bool settle(group *g, const read_unit *unit, uint32_t first, uint32_t count, bool seal) {
    bool alike = true;
    for (uint32_t i = first; i < first + count; i++) {
        shared_word *word = &unit->r->words[unit->page[i]];
        uint64_t heat = heat_of_return(g, unit->r, shared_load(word), unit->first_slot + i);
        bool sealed = seal && !shared_is_held(g, unit->r->object, unit->page[i]);
        shared_set(word, g->self, SHARED_RESIDENT, unit->frame[i], heat | (sealed ? SHARED_SEALED : 0));
        alike &= sealed == seal;
        if (unlikely(shared_policy_listens(&g->pool->shared_policy)))
            note_return(g, unit, i);
    }
    return alike;
}

/* Locked: mapped, but for a marker. */
static void map_run(group *g, const read_unit *unit, uint32_t first, uint32_t count, size_t mapped, bool seal) {
    size_t page = unit->page[first];
    if (!unit->markers[first] && mapped < count)
        shared_map_here(g, unit->r, page + mapped, count - mapped, (map_how){.sealed = seal});
    if (g->map_for_peers)
        shared_map_peers(g, unit->r, page, count, seal);
}

/* Neighbours with the right contents, locked, come in: all markers, or none. */
static void run_comes(group *g, const read_unit *unit, uint32_t first, uint32_t count) {
    shared_region *r = unit->r;
    size_t page = unit->page[first], mapped = 0;
    const unsigned char *contents = unit->memory + ((size_t)first << PAGE_SHIFT);
    bool seal = shared_seal_wanted(g, r);
    if (seal && !unit->markers[first])
        mapped = shared_copy_here(g, r, page, count, contents);
    if (!fill(unit, first, count, contents, mapped)) {
        for (uint32_t i = 0; i < count; i++)
            take_back(g, r, page + i, unit->frame[first + i], unit->first_slot + first + i);
        return;
    }
    bool alike = settle(g, unit, first, count, seal);
    FAILPOINT(shared_before_continue);
    map_run(g, unit, first, count, mapped, seal);
    for (uint32_t i = 0; i < count && !alike; i++)
        if (!(shared_load(&r->words[page + i]) & SHARED_SEALED))
            shared_allow_stores(g, r, page + i, 1);
    bool waiters = false;
    for (uint32_t i = 0; i < count; i++)
        waiters |= shared_unlock(&r->words[page + i], g->self);
    if (waiters)
        shared_wake(g, r, page, count);
    else if (mapped > 0) /* whose fault began the read */
        uffd_wake(g->uffd, shared_address(r, page), mapped << PAGE_SHIFT);
    atomic_fetch_add_explicit(&commons_head(&g->commons)->pages_read, count, memory_order_relaxed);
}

/* Contents go into the file only under the lock: so until then anybody may break off the read. */
static void run_ends(group *g, const read_unit *unit, uint32_t first, uint32_t count) {
    for (uint32_t end = first + count, run; first < end; first += run + 1) {
        for (run = 0; first + run < end && lock_read(g, unit, first + run); run++) {
        }
        if (run > 0)
            run_comes(g, unit, first, run);
        if (first + run < end)
            end_in_vain(g, unit, first + run);
    }
}

static void unit_complete(group *g, read_unit *unit, bool whole) {
    uint32_t begin = 0;
    for (uint32_t i = 0; i < unit->pages; i++) {
        void *memory = unit->memory + ((size_t)i << PAGE_SHIFT);
        uint64_t slot = unit->first_slot + i;
        int status = whole && is_right(g, slot, memory) ? 0 : read_again(g, slot, memory);
        bool right = status == 0;
        bool joins =
            right && i > begin && unit->page[i] == unit->page[i - 1] + 1 && unit->markers[i] == unit->markers[i - 1];
        if (i > begin && !joins)
            run_ends(g, unit, begin, i - begin);
        if (!joins)
            begin = i;
        if (!right) {
            lose(g, unit, i, status);
            begin = i + 1;
        }
    }
    if (begin < unit->pages)
        run_ends(g, unit, begin, unit->pages - begin);
    shared_region_put(unit->r);
    unit->busy = false;
}

bool shared_in_complete(group *g, bool wait) {
    io_request *request = io_collect(&g->read_io, wait);
    if (!request)
        return false;
    share_state *s = share_of(g);
    read_unit *unit = &s->unit[s->unit_of[request - g->read_io.requests]];
    bool whole = FAILPOINT(shared_read) == 0 && request->result == (int64_t)unit->pages << PAGE_SHIFT;
    io_request_put(&g->read_io, request);
    unit_complete(g, unit, whole);
    go_on(g);
    event_signal(&s->progress);
    return true;
}
