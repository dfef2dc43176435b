/*
 * read_ahead.c - what is asked for ahead of readers of a kind, against what they come to want: a reader that takes what it has been given, as the
 * core does (a mapped page shows no access, a marker does).
 */
#include "part.h"

#include "swap/read_ahead.h"

#include <string.h>

#define PAGES 65536
#define WINDOW_MAX 1024U

typedef enum { OUT = 0, MAPPED, MARKER } place;

typedef struct {
    read_ahead ahead;
    unsigned char place[PAGES];
    uint64_t faults, markers, read; /* that waited; that did not; pages */
} reader;

static void carry_out(reader *r, const read_ahead_plan *plan) {
    for (uint32_t i = 0; i < plan->count; i++) {
        int64_t page = plan->first + plan->stride * (int64_t)i;
        if (page < 0 || page >= PAGES || r->place[page] != OUT)
            continue;
        r->place[page] = read_ahead_marks(plan, page, i == 0) ? MARKER : MAPPED;
        r->read++;
    }
}

static void touch(reader *r, size_t page) {
    const read_ahead_bounds bounds = {.window = WINDOW_MAX, .pages = PAGES, .frames = PAGES};
    if (r->place[page] == MAPPED)
        return;
    bool absent = r->place[page] == OUT;
    r->read += absent;
    r->faults += absent;
    r->markers += !absent;
    r->place[page] = MAPPED;
    unsigned known = READ_AHEAD_RUNS | (absent ? READ_AHEAD_ABSENT : 0U);
    read_ahead_plan plan = read_ahead_fault(&r->ahead, (read_ahead_seen){.page = page, .known = known}, bounds);
    carry_out(r, &plan);
}

/* All leaves, as it does in between where there is little memory; what is known stays. */
static void leave(reader *r) {
    memset(r->place, OUT, sizeof r->place);
    r->faults = r->markers = r->read = 0;
}

static void records(reader *r, uint64_t count, uint64_t pages, int64_t step) {
    for (uint64_t i = 0; i < count; i++) {
        size_t first = dice(PAGES / 32) * 32 + 16;
        for (uint64_t page = 0; page < pages; page++)
            touch(r, (size_t)((int64_t)first + step * (int64_t)page));
        memset(r->place + first - 16, OUT, 32); /* it has left when it is wanted again */
    }
}

/* ---- readers ---- */

static void single_pages(reader *r) {
    records(r, 2000, 1, 1);
    CHECK(r->faults == 2000 && r->read == 2000 && r->markers == 0);
}

/* Once it is known how long they are, a record is a fault, and little else is read: up to the end of a step. Most of its pages are mapped before they
 * are touched, but for those of the runs that are looked at closely. */
static void records_of(reader *r, uint64_t pages, int64_t step) {
    records(r, 100, pages, step);
    leave(r);
    records(r, 1000, pages, step);
    CHECK(r->faults <= (step > 0 ? 1100 : 2100));
    uint64_t grain = pages <= 8 ? 1 : 2;
    CHECK(r->read <= 1000 * ((pages + grain - 1) / grain * grain) * 21 / 20);
    CHECK(r->markers <= 1100 + 1000 * run_steps_of(pages - 1) / 3);
}

/* Half of the pages go on to the next one: none is read in vain more often than it is wanted. */
static void mixed(reader *r) {
    for (int i = 0; i < 2000; i++)
        records(r, 1, 1 + dice(8) / 5, 1);
    CHECK(r->read <= r->faults + r->markers + 400);
}

static void sweep(reader *r, size_t first, size_t end, bool down) {
    for (size_t i = first; i < end; i++)
        touch(r, down ? PAGES - 1 - i : i);
}

/* Of all lengths at once: the longest are as likely as others, so all are read as they are; it costs no more than twice what is wanted. */
static void of_all_lengths(reader *r, uint64_t longest) {
    uint64_t wanted = 0;
    for (int i = 0; i < 4000; i++) {
        uint64_t pages = 1 + dice(longest);
        records(r, 1, pages, 1);
        wanted += pages;
    }
    CHECK(r->faults <= 4100);
    CHECK(r->read <= wanted * 2);
}

/* A run that is a bit longer than a young one is no long one. */
static void just_streams(reader *r, uint64_t pages) {
    for (int i = 0; i < 1000; i++) {
        size_t first = dice(PAGES / 512) * 512;
        for (size_t page = first; page < first + pages; page++)
            touch(r, page);
        memset(r->place + first, OUT, 512);
    }
    CHECK(r->read <= 1000 * 2 * pages);
    CHECK(r->faults <= 1100);
}

/* It waits at its beginning only, whatever was read before, and windows become large. */
static void streams(reader *r, bool down) {
    sweep(r, 1000, 30000, down);
    CHECK(r->faults <= (down ? 3U : 8U));
    CHECK(r->markers < 64 + RUN_STEPS); /* all steps of the first runs have one */
    CHECK(r->read < 29000 + 2 * WINDOW_MAX);
}

static void strides(reader *r) {
    for (size_t page = 7; page < PAGES; page += 16)
        touch(r, page);
    CHECK(r->faults <= 4);
    CHECK(r->read <= PAGES / 16 + 64);
}

/* Several at once, in turn, each a page. */
static void streams_in_turn(reader *r) {
    for (size_t i = 0; i < 8000; i++)
        for (size_t stream = 0; stream < 4; stream++)
            touch(r, stream * (PAGES / 4) + i);
    CHECK(r->faults <= 4 * 8);
}

/* ---- pages that others bring in, of which a fault maps several ---- */

static read_ahead_plan see(reader *r, size_t page, uint32_t mapped, unsigned known) {
    const read_ahead_bounds bounds = {.window = WINDOW_MAX, .pages = PAGES, .frames = PAGES};
    read_ahead_seen fault = {.page = page, .mapped = mapped, .known = known};
    read_ahead_plan plan = read_ahead_fault(&r->ahead, fault, bounds);
    CHECK(plan.count == 0 || plan.stride == 1);
    return plan;
}

/* It is a stream of neighbours, however many each fault maps and however little of what is asked for can be read; and it goes on where the pages end. */
static void mapped_by_runs(reader *r, uint32_t run, bool waited_for, unsigned known) {
    size_t page = 5;
    for (int i = 0; i < 50; i++, page += run) {
        read_ahead_plan plan = see(r, page, waited_for ? 0 : run, known);
        read_ahead_asked(&r->ahead, plan, 0);
        if (waited_for)
            plan = see(r, page, run, known);
        CHECK(plan.count == 0 || plan.first >= (int64_t)(page + run));
        CHECK(page < 5 + RUN_STREAM + 4 * (size_t)run || plan.count > 0);
        read_ahead_asked(&r->ahead, plan, 0);
    }
    sweep(r, page, PAGES / 2, false);
    CHECK(r->faults <= 1);
}

/* Where what is read here lies between, in pieces of the same size, they are no stream with a stride either. */
static void mapped_in_turn(reader *r, uint32_t run, unsigned known) {
    for (size_t page = 0; page < PAGES / 2; page += 2 * (size_t)run) {
        see(r, page, 0, known);
        see(r, page, run, known);
    }
}

/* Records that others have brought in say nothing of how long they are: a fault maps them whole, and what lies behind. */
static void mapped_records(reader *r, uint64_t pages, uint64_t of_ten) {
    uint64_t out = 0;
    for (int i = 0; i < 2000; i++) {
        size_t first = dice(PAGES / 32) * 32 + 16;
        if (dice(10) < of_ten) {
            see(r, first, 8, READ_AHEAD_RUNS);
            continue;
        }
        out++;
        for (size_t page = first; page < first + pages; page++)
            touch(r, page);
        memset(r->place + first - 16, OUT, 32);
    }
    CHECK(r->faults <= out + 100);
    CHECK(r->read <= out * pages * 11 / 10 + 100);
}

/* What was mapped has gone: who comes back to it reads a stream. */
static void mapped_and_gone(reader *r, unsigned known) {
    read_ahead_plan plan = see(r, 1000, 64, known);
    read_ahead_asked(&r->ahead, plan, 0);
    sweep(r, 1000, 3000, false);
    CHECK(r->faults <= 8);
}

/* ---- what the program has said ---- */

/* It holds at once, whatever was touched before. */
static void told_sequential(reader *r, size_t touched) {
    const read_ahead_bounds bounds = {.window = WINDOW_MAX, .pages = PAGES, .frames = PAGES};
    for (size_t page = 100; page < 100 + touched; page++)
        touch(r, page);
    unsigned known = READ_AHEAD_RUNS | READ_AHEAD_ABSENT | READ_AHEAD_SEQUENTIAL;
    read_ahead_plan plan = read_ahead_fault(&r->ahead, (read_ahead_seen){.page = 100, .known = known}, bounds);
    CHECK(plan.first == 101 && plan.stride == 1 && plan.count == WINDOW_MAX && !plan.young);
}

static reader *new_reader(void) {
    reader *r = calloc(1, sizeof *r);
    CHECK(r);
    return r;
}

#define RUN(call)                                                                                                      \
    do {                                                                                                               \
        reader *r = new_reader();                                                                                      \
        call;                                                                                                          \
        free(r);                                                                                                       \
    } while (0)

int main(void) {
    RUN(single_pages(r));
    for (uint64_t pages = 2; pages <= 16; pages++) {
        RUN(records_of(r, pages, 1));
        RUN(records_of(r, pages, -1));
    }
    RUN(mixed(r));
    RUN(of_all_lengths(r, 8));
    RUN(of_all_lengths(r, 16));
    RUN(just_streams(r, RUN_STREAM + 1));
    RUN(just_streams(r, 40));
    RUN(streams(r, false));
    RUN(streams(r, true));
    RUN(strides(r));
    RUN(streams_in_turn(r));
    for (uint32_t run = 2; run <= 512; run *= 2)
        for (unsigned known = 0; known <= READ_AHEAD_RUNS; known += READ_AHEAD_RUNS) {
            RUN(mapped_by_runs(r, run, false, known));
            RUN(mapped_by_runs(r, run, true, known));
            RUN(mapped_in_turn(r, run, known));
        }
    for (uint64_t of_ten = 0; of_ten < 9; of_ten++)
        RUN(mapped_records(r, 5, of_ten));
    RUN(mapped_and_gone(r, 0));
    RUN(mapped_and_gone(r, READ_AHEAD_RUNS));
    for (size_t touched = 0; touched < 3; touched++)
        RUN(told_sequential(r, touched));
    /* Another kind after one. */
    RUN((records(r, 500, 4, 1), leave(r), records(r, 200, 1, 1), leave(r), single_pages(r)));
    RUN((records(r, 500, 1, 1), leave(r), records_of(r, 5, 1)));
    RUN((records(r, 500, 3, 1), leave(r), streams(r, false)));
    RUN((records(r, 500, 3, 1), records(r, 200, 1, 1), leave(r), strides(r)));
    return 0;
}
