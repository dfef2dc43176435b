#include "swap/read_ahead.h"

#include "frame/arena.h"

/* The first window of a stream, in strides. */
#define WINDOW_FIRST 8U
/* Two faults this far apart (pages) may be one stream; farther apart they are random. */
#define STRIDE_MAX 64
/* Pages that are no neighbours are read one by one: a quarter of the requests of a queue, so that several windows can be in flight. */
#define SCATTERED_MAX 64U
/* Lanes read at once; beyond that a request costs the more the larger it is. */
#define LANES_MAX 8U
/* A stream to which none of so many faults belonged may be what an earlier sweep has left behind: it has to come to speed again. */
#define STALE_FAULTS 32U

static int64_t distance(int64_t a, int64_t b) {
    return a < b ? b - a : a - b;
}

/* Whether the fault lies where an established stream is expected: after the last one (or there, if that is tried again), up to the end of
 * what was asked for. */
static bool continues(const read_ahead_stream *s, int64_t page) {
    int64_t beyond_last = s->stride > 0 ? page - s->last : s->last - page;
    int64_t still_asked = s->stride > 0 ? s->next - page : page - s->next;
    return beyond_last >= 0 && still_asked >= 0 && (page - s->last) % s->stride == 0;
}

/* Among what the last fault was at: it was waited for, say, and is mapped now. */
static bool is_seen(const read_ahead_stream *s, int64_t page) {
    return page >= s->last && page <= s->end;
}

/* How far the fault is from the last one; behind all that one has mapped it is at its neighbour. */
static int64_t stride_to(const read_ahead_stream *s, int64_t page) {
    return page == s->end + 1 ? 1 : page - s->last;
}

static bool is_neighbour(int64_t stride) {
    return stride == 1 || stride == -1;
}

/* Whether the stride that two faults told has come true. */
static bool is_third(const read_ahead_stream *s, int64_t page) {
    return s->stride == stride_to(s, page) && (is_neighbour(s->stride) || s->end == s->last);
}

/* Who goes on behind what is mapped is the same reader; and nothing of it is to be read. */
static void come_to(read_ahead_stream *s, int64_t page, int64_t end) {
    s->last = page;
    s->end = end;
    if (s->stride == 1)
        s->next = MAX_OF(s->next, end + 1);
}

/* The first page of which its last fault says nothing. */
static int64_t page_beyond(const read_ahead_stream *s) {
    return (s->stride == 1 ? s->end : s->last) + s->stride;
}

/* How near the fault is to a stream that is not confirmed: one of a single fault, to which this one may be the second, or one that guessed
 * a stride but has the page next to this as its last. Readers of whole groups fault so: at the last page of one, at the first of the next. */
static int64_t nearness(const read_ahead_stream *s, int64_t page) {
    int64_t apart = is_seen(s, page) ? 0 : distance(stride_to(s, page), 0);
    bool candidate = s->window == 0 && (s->stride == 0 || apart <= 1);
    return candidate ? apart : INT64_MAX;
}

/* The stream this fault belongs to: an established one first; then one whose stride this fault would confirm; then the nearest of those
 * whose stride it would tell. Of several established ones the one that was used last: what another sweep has left behind, days ago, may
 * expect the page too, and would read what lies between the pages of a reader with a stride. */
static read_ahead_stream *find_stream(read_ahead *ahead, int64_t page) {
    read_ahead_stream *second = NULL, *third = NULL, *established = NULL;
    int64_t nearest = STRIDE_MAX + 1;
    for (int i = 0; i < READ_AHEAD_STREAMS; i++) {
        read_ahead_stream *s = &ahead->stream[i];
        if (s->used == 0)
            continue;
        if (s->window > 0 && continues(s, page) && (!established || s->used > established->used))
            established = s;
        if (s->window == 0 && s->stride != 0 && is_third(s, page))
            third = s;
        if (nearness(s, page) < nearest) {
            nearest = nearness(s, page);
            second = s;
        }
    }
    if (established)
        return established;
    return third ? third : second;
}

static read_ahead_stream *oldest_stream(read_ahead *ahead) {
    read_ahead_stream *oldest = &ahead->stream[0];
    for (int i = 1; i < READ_AHEAD_STREAMS; i++)
        if (ahead->stream[i].used < oldest->used)
            oldest = &ahead->stream[i];
    return oldest;
}

/* Windows of this size are kept full block by block; smaller ones are asked for whole, when the reader comes to the last one. */
#define WINDOW_WIDE BLOCK_PAGES

static bool is_wide(const read_ahead_stream *s) {
    return is_neighbour(s->stride) && s->window >= WINDOW_WIDE;
}

static read_ahead_plan plan_of(read_ahead_stream *s, uint32_t count) {
    if (!is_neighbour(s->stride))
        count = MIN_OF(count, SCATTERED_MAX);
    read_ahead_plan plan = {
        .first = s->next, .stride = s->stride, .count = count, .width = MAX_OF(s->width, 1U), .wide = is_wide(s)};
    s->next += s->stride * (int64_t)count;
    return plan;
}

/* What was guessed of a stream's first two pages has come true, or has not. */
static void end_guess(read_ahead *ahead, read_ahead_stream *s, bool came_true) {
    if (s->guessed)
        guess_note(&ahead->pairs, came_true);
    s->guessed = false;
}

/* The stream goes on: ask for more if the reader has used half of what was asked for; or what is missing of a wide window. */
static read_ahead_plan advance(read_ahead_stream *s, uint32_t maximum, bool absent, bool stale) {
    int64_t beyond = page_beyond(s);
    if (absent || stale)
        s->next = beyond;
    if (stale) {
        s->window = MIN_OF(WINDOW_FIRST, maximum);
        return plan_of(s, s->window);
    }
    int64_t left = (s->next - beyond) / s->stride + 1;
    if (left > (int64_t)s->window)
        return (read_ahead_plan){0};
    s->window = MIN_OF(s->window * 2, maximum);
    if (left <= 1)
        s->next = beyond;
    if (is_wide(s) && left > 1)
        return plan_of(s, (uint32_t)MAX_OF((int64_t)s->window - left, INT64_C(1)));
    return plan_of(s, s->window);
}

/* It goes no farther. Of a page whose fault has mapped those behind it nobody knows whether it was alone. */
static void end_run(read_ahead *ahead, read_ahead_stream *s) {
    if (s->young && (s->reached > 0 || s->end <= s->start))
        runs_note_end(&ahead->runs, s->reached, s->close);
    s->young = false;
}

/* A young run has come to its last page: ask for as much as is worth it. Old enough, it is a stream. */
static read_ahead_plan go_on(read_ahead *ahead, read_ahead_stream *s, uint32_t maximum, bool absent) {
    int64_t stride = s->stride ? s->stride : 1;
    uint64_t beyond = (uint64_t)distance(s->last, s->start);
    unsigned reached = run_steps_of(beyond);
    if (reached > s->reached) {
        runs_note_reached(&ahead->runs, s->reached, reached, s->close);
        s->reached = (uint8_t)reached;
    }
    if (beyond >= RUN_STREAM) {
        s->young = false;
        s->window = MIN_OF(RUN_STREAM / 2, maximum); /* doubled now: as much again as it has come */
        return advance(s, maximum, absent, false);
    }
    if (absent)
        s->next = s->last + stride; /* nothing behind it is mapped */
    int64_t asked = distance(s->next, s->start);
    int64_t wanted = (int64_t)runs_worth(&ahead->runs, s->reached, (uint64_t)asked) - asked;
    if (wanted <= 0)
        return (read_ahead_plan){0};
    s->stride = stride;
    s->window = (uint32_t)MIN_OF(wanted, (int64_t)maximum);
    read_ahead_plan plan = plan_of(s, s->window);
    plan.young = true;
    plan.close = s->close;
    plan.start = s->start;
    return plan;
}

static read_ahead_plan start_stream(read_ahead *ahead, read_ahead_stream *s, int64_t page, int64_t end,
                                    uint32_t maximum, unsigned known) {
    end_guess(ahead, s, false);
    end_run(ahead, s);
    *s = (read_ahead_stream){.last = page, .end = end, .next = end + 1, .start = page, .width = 1};
    if (known & READ_AHEAD_SEQUENTIAL) {
        s->stride = 1;
        s->window = maximum;
        return plan_of(s, s->window);
    }
    s->young = known & READ_AHEAD_RUNS;
    s->close = s->young && runs_look_closely(&ahead->runs);
    return s->young ? go_on(ahead, s, maximum, false) : (read_ahead_plan){0};
}

/* How many lanes to read: 1, or, if the stream begins right behind the lanes of another one, as many as there is room for. A lane has a
 * page each stride of the region, for all that is known. */
static uint32_t width_of(const read_ahead *ahead, const read_ahead_stream *s, const read_ahead_bounds *bounds) {
    uint64_t stride = (uint64_t)distance(s->stride, 0);
    uint64_t lanes = MIN_OF(bounds->frames / MAX_OF(bounds->pages / stride, UINT64_C(1)), stride);
    for (int i = 0; i < READ_AHEAD_STREAMS && lanes > 1; i++) {
        const read_ahead_stream *before = &ahead->stream[i];
        if (before != s && before->window > 0 && before->stride == s->stride &&
            s->start == before->start + (int64_t)before->width)
            return (uint32_t)MIN_OF(lanes, (uint64_t)LANES_MAX);
    }
    return 1;
}

/* The page is next to one that was alone. */
static void begin_run(read_ahead *ahead, read_ahead_stream *s, int64_t page) {
    bool down = page < s->last;
    if (down) /* of a single page nobody reads what lies below */
        end_run(ahead, s);
    s->start = s->last;
    s->stride = stride_to(s, page);
    s->next = page + s->stride;
    s->window = 1;
    s->reached = down;
    s->young = true;
}

/* What the fault says of the stride. Return: whether that is established. A second fault next to the first is a run, or, where runs are not told, a
 * stream. One farther off may be chance: it takes a third at the same distance; and so does one next to it where such guesses fail. */
static bool confirms(read_ahead *ahead, read_ahead_stream *s, int64_t page) {
    end_run(ahead, s);
    bool third = is_third(s, page), pair = !third && is_neighbour(stride_to(s, page));
    bool established = third || (pair && guess_pays(&ahead->pairs));
    end_guess(ahead, s, third);
    s->guessed = pair;
    if (!third)
        s->start = s->last;
    s->stride = stride_to(s, page);
    return established;
}

/* A fault of a stream that is not established yet. */
static read_ahead_plan confirm(read_ahead *ahead, read_ahead_stream *s, int64_t page, int64_t end,
                               const read_ahead_bounds *bounds, unsigned known) {
    if (is_seen(s, page)) {
        s->end = MAX_OF(s->end, end);
        return (read_ahead_plan){0};
    }
    if ((known & READ_AHEAD_RUNS) && is_neighbour(stride_to(s, page))) {
        begin_run(ahead, s, page);
        come_to(s, page, end);
        return go_on(ahead, s, bounds->window, false);
    }
    bool established = confirms(ahead, s, page);
    come_to(s, page, end);
    s->next = page_beyond(s);
    if (!established)
        return (read_ahead_plan){0};
    s->window = MIN_OF(WINDOW_FIRST, bounds->window);
    s->width = width_of(ahead, s, bounds);
    return plan_of(s, s->window);
}

bool read_ahead_expects(read_ahead *ahead, size_t page) {
    bool expected = false;
    small_lock_acquire(&ahead->lock);
    for (int i = 0; i < READ_AHEAD_STREAMS && !expected; i++) {
        const read_ahead_stream *s = &ahead->stream[i];
        expected =
            s->used != 0 && s->window > 0 && ahead->clock - s->used <= STALE_FAULTS && continues(s, (int64_t)page);
    }
    small_lock_release(&ahead->lock);
    return expected;
}

void read_ahead_wasted(read_ahead *ahead, size_t page_number) {
    int64_t page = (int64_t)page_number;
    small_lock_acquire(&ahead->lock);
    for (int i = 0; i < READ_AHEAD_STREAMS; i++) {
        read_ahead_stream *s = &ahead->stream[i];
        if (s->used == 0 || s->window == 0 || s->young || !continues(s, page) || s->shrunk == s->next)
            continue;
        s->window = MAX_OF(s->window / 2, WINDOW_FIRST);
        s->shrunk = s->next;
    }
    small_lock_release(&ahead->lock);
}

void read_ahead_asked(read_ahead *ahead, read_ahead_plan plan, uint32_t done) {
    small_lock_acquire(&ahead->lock);
    for (int i = 0; i < READ_AHEAD_STREAMS; i++) {
        read_ahead_stream *s = &ahead->stream[i];
        if (s->used != 0 && s->stride == plan.stride && s->next == plan.first + plan.stride * (int64_t)plan.count)
            s->next = plan.first + plan.stride * (int64_t)done;
    }
    small_lock_release(&ahead->lock);
}

/* Of what was mapped this page, and who knows what behind it, is gone. */
static void forget_mapped(read_ahead *ahead, int64_t page) {
    for (int i = 0; i < READ_AHEAD_STREAMS; i++) {
        read_ahead_stream *s = &ahead->stream[i];
        if (s->window == 0 && is_seen(s, page))
            s->end = MAX_OF(s->last, page - 1);
    }
}

/* A run waits for a page for a while; what it has waited for longer is not what this fault begins. */
static bool is_stale_run(const read_ahead *ahead, const read_ahead_stream *s) {
    return s->young && s->window > 0 && ahead->clock - s->used > STALE_FAULTS;
}

/* Whether what is not established yet begins once more: the program says that it is a stream; or its only page has been dropped since. */
static bool begins_again(const read_ahead_stream *s, int64_t page, unsigned known) {
    bool again = (known & READ_AHEAD_ABSENT) && s->window == 0 && page == s->last;
    return again || ((known & READ_AHEAD_SEQUENTIAL) && (s->young || s->window == 0));
}

/* A fault of an established one, or of a young run. */
static read_ahead_plan follow(read_ahead *ahead, read_ahead_stream *s, int64_t page, int64_t end, uint32_t maximum,
                              bool absent) {
    if (!s->young && page != s->last)
        end_guess(ahead, s, true);
    come_to(s, page, end);
    return s->young ? go_on(ahead, s, maximum, absent)
                    : advance(s, maximum, absent, ahead->clock - s->used > STALE_FAULTS);
}

read_ahead_plan read_ahead_fault(read_ahead *ahead, read_ahead_seen fault, read_ahead_bounds bounds) {
    int64_t page = (int64_t)fault.page, end = page + (int64_t)MAX_OF(fault.mapped, 1U) - 1;
    read_ahead_plan plan = {0};
    if (bounds.window == 0)
        return plan;
    small_lock_acquire(&ahead->lock);
    ahead->clock++;
    if (fault.known & READ_AHEAD_ABSENT)
        forget_mapped(ahead, page);
    read_ahead_stream *s = find_stream(ahead, page);
    if (s && is_stale_run(ahead, s))
        s = NULL;
    read_ahead_stream *place = s ? s : oldest_stream(ahead);
    if (s && begins_again(s, page, fault.known))
        s = NULL;
    if (!s)
        plan = start_stream(ahead, place, page, end, bounds.window, fault.known);
    else if (s->window == 0)
        plan = confirm(ahead, s, page, end, &bounds, fault.known);
    else
        plan = follow(ahead, s, page, end, bounds.window, fault.known & READ_AHEAD_ABSENT);
    place->used = ahead->clock;
    plan.stream = s && s->window > 0;
    plan.near = s != NULL;
    small_lock_release(&ahead->lock);
    return plan;
}
