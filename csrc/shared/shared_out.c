/*
 * shared_out.c - evictions of shared pages, by the steps of README (Processes of one pool): chosen, write-protected, written. How they leave: shared_leave.c.
 */
#define _GNU_SOURCE
#include "shared/shared_core.h"

#include "base/failpoint.h"
#include "base/memory.h"
#include "pool.h"
#include "shared/shared_advise.h"
#include "swap/fill_value.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- choosing, protecting ---- */

static bool comes_before(const out_page *a, const out_page *b) {
    return a->r->object != b->r->object ? a->r->object < b->r->object : a->page < b->page;
}

/* By address: neighbours share calls, and slots. They mostly come so. */
static void sort(out_batch *b) {
    for (uint32_t i = 1; i < b->count; i++) {
        out_page page = b->page[i];
        uint32_t at = i;
        for (; at > 0 && comes_before(&page, &b->page[at - 1]); at--)
            b->page[at] = b->page[at - 1];
        b->page[at] = page;
    }
}

uint32_t out_run_of(const out_page *first, uint32_t pages) {
    uint32_t run = 1;
    while (run < pages && first[run].r == first->r && first[run].page == first->page + run)
        run++;
    return run;
}

/* And are of that kind, too, as the first is. */
static uint32_t run_of_kind(const out_page *first, uint32_t pages) {
    uint32_t most = out_run_of(first, pages), run = 1;
    while (run < most && first[run].kind == first->kind)
        run++;
    return run;
}

/* Their words say WRITING: whoever has begun to map one, or to hold it, has said so before, or finds that. */
static void pass_over(group *g, out_page *page, uint32_t pages) {
    full_fence();
    for (uint32_t i = 0; i < pages; i++)
        if (at_work_on(g, page[i].r->object, page[i].page) || shared_is_held(g, page[i].r->object, page[i].page))
            page[i].kind = OUT_GIVEN_UP;
}

static bool is_to_be_protected(const out_page *v) {
    return v->kind == OUT_CHOSEN || v->kind == OUT_DISCARDED;
}

static void protect(group *g, out_page *page, uint32_t pages) {
    mapper_set set;
    const shared_region *known = NULL;
    mappers_begin(g);
    for (uint32_t i = 0, run; i < pages; i += run) {
        out_page *first = &page[i];
        run = run_of_kind(first, pages - i);
        if (first->r != known)
            mappers_look(g, first->r->object, &set);
        known = first->r;
        bool done = !is_to_be_protected(first) || mappers_protect(g, &set, first->page, run);
        for (uint32_t n = 0; n < run; n++) {
            first[n].epoch = set.epoch;
            first[n].kind = done ? first[n].kind : OUT_GIVEN_UP;
        }
    }
    mappers_end(g);
    FAILPOINT(shared_protected);
}

void out_settle(group *g, out_page *page, uint32_t pages) {
    _Atomic uint64_t *protects = &group_entry(g, g->self)->protects;
    FAILPOINT(shared_writing);
    small_lock_acquire(&g->protect_lock);
    atomic_fetch_add(protects, 1);
    pass_over(g, page, pages);
    protect(g, page, pages);
    atomic_fetch_add(protects, 1);
    small_lock_release(&g->protect_lock);
}

/* ---- contents ---- */

static unsigned char *page_memory(const out_batch *b, uint32_t i) {
    return b->memory + ((size_t)b->page[i].bounce << PAGE_SHIFT);
}

static void judge(group *g, out_page *v, const void *memory) {
    uint64_t value;
    if (fill_value_of(memory, &value) && value == 0) {
        v->kind = OUT_EMPTY;
        return;
    }
    shared_hash(g, memory, v->hash);
    bool same = v->kept > 0 && slot_table_is_of(g, v->kept - 1, region_ref(v->r, v->page)) &&
                memcmp(commons_slots(&g->commons)[v->kept - 1].hash, v->hash, sizeof v->hash) == 0;
    v->kind = same ? OUT_CLEAN : OUT_DIRTY;
}

static void read_contents(group *g, out_batch *b) {
    for (uint32_t i = 0, next = 0; i < b->count; i++)
        b->page[i].bounce = b->page[i].kind == OUT_CHOSEN ? next++ : 0;
    for (uint32_t i = 0, run; i < b->count; i += run) {
        out_page *first = &b->page[i];
        run = run_of_kind(first, b->count - i);
        size_t bytes = (size_t)run << PAGE_SHIFT;
        if (first->kind != OUT_CHOSEN)
            continue;
        ssize_t done = pread(first->r->fd, page_memory(b, i), bytes, (off_t)((uint64_t)first->page << PAGE_SHIFT));
        for (uint32_t n = 0; n < run; n++)
            if (done == (ssize_t)bytes)
                judge(g, &first[n], page_memory(b, i + n));
            else
                first[n].kind = OUT_GIVEN_UP;
    }
}

/* ---- slots, writes ---- */

static void claim_slots(group *g, out_batch *b) {
    uint32_t need = 0;
    for (uint32_t i = 0; i < b->count; i++)
        need += b->page[i].kind == OUT_DIRTY;
    uint64_t next = 0;
    for (uint32_t i = 0, left = 0; i < b->count; i++) {
        out_page *v = &b->page[i];
        if (v->kind != OUT_DIRTY)
            continue;
        if (left == 0 && need > 0)
            left = slot_table_claim(g, need, &next);
        if (left == 0) { /* the swap is full: data goes before the limit */
            v->kind = OUT_GIVEN_UP;
            need = 0;
            continue;
        }
        v->slot = next++;
        v->claimed = true;
        left--;
        need--;
        slot_table_aim(g, v->slot, region_ref(v->r, v->page));
    }
}

static void send(group *g, io_request *request) {
    atomic_fetch_add_explicit(&commons_head(&g->commons)->pages_written, request->pages, memory_order_relaxed);
    io_submit(&g->write_io, request);
}

static void write_out(group *g, out_batch *b) {
    out_state *s = out_of(g);
    io_request *request = NULL;
    for (uint32_t i = 0; i < b->count; i++) {
        if (b->page[i].kind != OUT_DIRTY)
            continue;
        uint64_t slot = b->page[i].slot;
        if (request && slot == swap_entry_slot(request->first) + request->pages &&
            io_request_add(request, page_memory(b, i)))
            continue;
        if (request)
            send(g, request);
        request = io_request_get(&g->write_io, IO_WRITE, g->swap_fd, swap_entry_make(0, slot));
        if (!request) { /* so scattered a batch there is hardly ever */
            for (; i < b->count; i++)
                if (b->page[i].kind == OUT_DIRTY)
                    b->page[i].kind = OUT_GIVEN_UP;
            break;
        }
        io_request_add(request, page_memory(b, i));
        s->request[request - g->write_io.requests] = (out_request){.batch = (uint8_t)(b - s->batch), .first = i};
        b->pending++;
    }
    if (request)
        send(g, request);
    io_flush(&g->write_io);
}

/* ---- the end of it ---- */

static bool write_again(group *g, const void *memory, uint64_t slot) {
    return io_page(&g->write_io, IO_WRITE, g->swap_fd, (void *)(uintptr_t)memory, swap_entry_make(0, slot)) == 0;
}

static void note_written(group *g, const io_request *request) {
    out_state *s = out_of(g);
    const out_request *of = &s->request[request - g->write_io.requests];
    out_batch *b = &s->batch[of->batch];
    bool whole = FAILPOINT(shared_written) == 0 && request->result == (int64_t)request->pages << PAGE_SHIFT;
    uint64_t slot = swap_entry_slot(request->first);
    for (uint32_t i = of->first, left = request->pages; left > 0; i++) {
        out_page *v = &b->page[i];
        if (v->kind != OUT_DIRTY || v->slot != slot)
            continue;
        if (whole || write_again(g, page_memory(b, i), slot)) {
            v->kind = OUT_WRITTEN;
        } else {
            STAT_ADD(g->pool, write_errors, 1);
            slot_table_condemn(g, slot);
            v->claimed = false;
            v->kind = OUT_GIVEN_UP;
        }
        slot++;
        left--;
    }
    b->pending--;
}

/* Return: false: nothing was in flight. */
static bool collect(group *g) {
    io_request *request = io_collect(&g->write_io, true);
    if (!request)
        return false;
    out_batch *b = &out_of(g)->batch[out_of(g)->request[request - g->write_io.requests].batch];
    note_written(g, request);
    io_request_put(&g->write_io, request);
    if (b->pending == 0)
        shared_leave(g, b);
    return true;
}

static out_batch *free_batch(group *g) {
    do
        for (uint32_t i = 0; i < out_of(g)->batches; i++)
            if (out_of(g)->batch[i].count == 0)
                return &out_of(g)->batch[i];
    while (collect(g));
    return NULL;
}

static bool begin_batch(group *g, out_batch *b, out_search *search, uint32_t most) {
    b->count = hand_choose(g, search, b->page, most, out_of(g)->batch_pages);
    if (b->count == 0)
        return false;
    sort(b);
    out_settle(g, b->page, b->count);
    return true;
}

static void evict_batch(group *g, out_batch *b) {
    read_contents(g, b);
    claim_slots(g, b);
    write_out(g, b);
    if (b->pending == 0)
        shared_leave(g, b);
}

static uint64_t evict(group *g, uint64_t want, out_search search) {
    out_state *s = out_of(g);
    small_lock_acquire(&s->lock);
    uint64_t begun = 0;
    s->freed = 0;
    while (begun < want) {
        out_batch *b = free_batch(g);
        uint64_t room = MIN_OF(MAX_OF(want - begun, (uint64_t)OUT_BATCH_LEAST), (uint64_t)s->together);
        if (!b || !begin_batch(g, b, &search, (uint32_t)room))
            break;
        begun += b->count;
        atomic_store_explicit(&group_entry(g, g->self)->evicts_ns, clock_now_ns(), memory_order_relaxed);
        evict_batch(g, b);
    }
    while (collect(g)) {
    }
    atomic_store_explicit(&group_entry(g, g->self)->evicts_ns, 0, memory_order_relaxed);
    uint64_t freed = s->freed;
    small_lock_release(&s->lock);
    return freed;
}

uint64_t shared_out(group *g, uint64_t want) {
    uint64_t frames = commons_head(&g->commons)->frames; /* as often round as a page is passed over, and once more */
    return out_of(g) ? evict(g, want, (out_search){.left = (HEAT_ROUNDS_MAX + 1) * frames}) : 0;
}

uint64_t shared_out_frames(group *g, uint64_t first, uint64_t frames) {
    out_search search = {.first = first, .end = first + frames, .left = frames};
    return out_of(g) ? evict(g, frames, search) : 0;
}

void shared_evict(group *g, shared_region *r, size_t page, size_t pages) {
    out_search search = {.r = r, .page = page, .pages = pages};
    if (out_of(g))
        evict(g, pages, search);
}
