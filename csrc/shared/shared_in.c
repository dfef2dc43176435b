/*
 * shared_in.c - shared pages that come in: claims, and reads (their end: shared_in_end.c).
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

/* A page joins it. */
static void unit_add(group *g, read_unit *unit, size_t page, uint32_t frame, bool marker) {
    unit->page[unit->pages] = page;
    unit->frame[unit->pages] = frame;
    unit->markers[unit->pages++] = marker;
    if (unit->alone)
        send_unit(g, unit);
}

/* It was for a page that somebody else has. */
static void unit_drop(group *g, read_unit *unit) {
    share_state *s = share_of(g);
    if (unit->pages > 0)
        return;
    if (s->growing == unit)
        s->growing = NULL;
    unit->busy = false;
    shared_region_put(unit->r);
}

/* SWAPPED, as it was seen => READING. The frame is settled after that: README, Order of steps. */
static shared_result claim(group *g, shared_region *r, size_t page, uint64_t seen, read_reason reason, uint32_t want) {
    share_state *s = share_of(g);
    shared_word *word = &r->words[page];
    uint64_t slot = shared_field_of(seen);
    bool waiters = false; /* who waits, waits for the end of the read */
    uint32_t frame;
    if (!next_frame(g, want, reason >= READ_AHEAD, &frame))
        return SHARED_NO_FRAME;
    read_unit *unit = unit_for(g, r, slot, reason == READ_ALONE);
    shared_result result = unit ? SHARED_LOST : SHARED_AGAIN;
    shared_ref ref = region_ref(r, page);
    if (unit) {
        frame_table_aim(g, frame, ref, slot + 1);
        if (shared_move(word, seen, SHARED_READING, g->self, frame, heat_kept(seen), &waiters))
            result = SHARED_DONE;
        else
            unit_drop(g, unit);
    }
    if (result != SHARED_DONE) {
        s->frames[s->frames_left++] = frame;
        return result;
    }
    FAILPOINT(shared_unsettled);
    frame_table_settle(g, frame, ref, slot + 1); /* broken off already: the read ends in vain */
    unit_add(g, unit, page, frame, reason == READ_MARKER);
    return SHARED_DONE;
}

/* What is out, or is being read by who is stopped. Return: false when frames or memory have run out. */
static bool read_page(group *g, shared_region *r, size_t page, read_reason reason, uint32_t want) {
    shared_word *word = &r->words[page];
    uint64_t seen = shared_load(word);
    if (shared_state_of(seen) == SHARED_READING && shared_break_read(g, r, page, word))
        seen = shared_load(word);
    if (shared_state_of(seen) != SHARED_SWAPPED || (seen & SHARED_LOCK))
        return true;
    shared_result result = claim(g, r, page, seen, reason, want);
    return result == SHARED_DONE || result == SHARED_LOST;
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
    uint64_t seen = shared_load(&r->words[page]);
    if (shared_state_of(seen) != SHARED_SWAPPED || (seen & SHARED_LOCK))
        return SHARED_LOST;
    if (result != SHARED_DONE)
        return result;
    plan = plan_of(g, r, (read_ahead_seen){.page = page, .known = READ_AHEAD_ABSENT});
    bool behind = plan.young && plan.first == (int64_t)page + 1;
    bool short_run = behind && plan.count > 0 && plan.count <= SHORT_RUN;
    result = claim(g, r, page, seen, short_run ? READ_FIRST : READ_ALONE, 1);
    carry_out(g, r, plan);
    return result;
}

/* ---- ending ---- */

bool shared_in_complete(group *g, bool wait) {
    io_request *request = io_collect(&g->read_io, wait);
    if (!request)
        return false;
    share_state *s = share_of(g);
    read_unit *unit = &s->unit[s->unit_of[request - g->read_io.requests]];
    bool whole = FAILPOINT(shared_read) == 0 && request->result == (int64_t)unit->pages << PAGE_SHIFT;
    io_request_put(&g->read_io, request);
    shared_in_end(g, unit, whole);
    shared_region_put(unit->r);
    unit->busy = false;
    go_on(g);
    event_signal(&s->progress);
    return true;
}
