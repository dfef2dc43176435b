/*
 * shared_out_thread.c - the thread "uswap-shout": keeps frames free for shared pages, and ends objects that nobody maps.
 */
#define _GNU_SOURCE
#include "shared/shared_core.h"

#include "base/memory.h"
#include "pool.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#define STACK_BYTES ((size_t)256 << 10)
#define TICK_MS 100
/* Nothing could be evicted: so long until the next try. */
#define AGAIN_MS 2
#define LOW_LEAST 512
#define LOW_SHARE 64
/* While streams ask for more than is free: so many are kept free, at most. */
#define WIDE_NS UINT64_C(2000000000)
#define WIDE_SHARE 8
#define WIDE_MOST 6144
#define EVICT_LEAST 512
/* Who has begun to evict some not longer ago is at it still; what he has brought is looked at after that. */
#define AT_WORK_NS UINT64_C(20000000)
#define OTHERS_MS 1
#define WANT_LEAST 16
#define PRESSED_NS UINT64_C(1000000000)
#define ENDING_NS UINT64_C(1000000000)
#define WRITE_REQUESTS 128

typedef struct {
    uint64_t total, used, low;
} level;

static level look(group *g) {
    share_state *share = share_of(g);
    level now;
    hand_count(g, &now.total, &now.used);
    bool wide = share && clock_now_ns() - atomic_load(&share->cut_ns) < WIDE_NS;
    uint64_t part = wide ? MIN_OF(now.total / WIDE_SHARE, (uint64_t)WIDE_MOST) : now.total / LOW_SHARE;
    now.low = MIN_OF(MAX_OF((uint64_t)LOW_LEAST, part), now.total / 4);
    if (share) {
        atomic_store(&share->frames_total, now.total);
        atomic_store(&share->frames_low, now.low);
    }
    return now;
}

static bool faults_wait(group *g) {
    return share_of(g) && atomic_load(&share_of(g)->wants_frames);
}

/* Shared pages could do with more: so many chunks. One word for all members: only who has said so takes it back. */
static void say_starved(group *g, uint64_t chunks) {
    out_state *s = out_of(g);
    if (chunks > 0 || s->starved)
        atomic_store(&commons_head(&g->commons)->shared_starved, chunks);
    s->starved = chunks > 0;
}

/* As private frames do: pressed is who has had to evict, a moment ago. Whether it pays is told by refaults. */
static void note_pressure(group *g, const level *now, bool evicts) {
    out_state *s = out_of(g);
    uint64_t clock = clock_now_ns(), chunks = now->total / commons_head(&g->commons)->chunk_frames;
    if (evicts) {
        s->pressed_ns = clock;
        say_starved(g, MAX_OF(chunks / 2, (uint64_t)WANT_LEAST));
    } else if (s->starved && clock - s->pressed_ns > PRESSED_NS) {
        say_starved(g, 0);
    }
}

static bool somebody_evicts(group *g) {
    const commons_header *head = commons_head(&g->commons);
    uint64_t clock = clock_now_ns();
    for (unsigned i = 0; i < MEMBERS_MAX; i++) {
        uint64_t since = atomic_load_explicit(&head->members[i].evicts_ns, memory_order_relaxed);
        if (i != member_index(g->self) && since != 0 && clock - MIN_OF(since, clock) < AT_WORK_NS)
            return true;
    }
    return false;
}

/* Frames come free for all: several at once would free as much each as one was to. Nobody is relied on: not where frames are about to run out, nor for long. */
static bool leave_to_others(group *g, const level *now) {
    return now->total - now->used > now->low / 2 && !shared_policy_listens(&g->pool->shared_policy) &&
           somebody_evicts(g);
}

/* Return: how long to sleep, ms. */
static int keep_free(group *g) {
    uint64_t chunk_frames = commons_head(&g->commons)->chunk_frames;
    level now = look(g);
    bool wait = faults_wait(g), evicts = (now.used > 0 && now.total - now.used <= now.low) || wait;
    note_pressure(g, &now, evicts);
    if (!evicts)
        return TICK_MS;
    shared_policy_wake(g);
    uint64_t lacks = MAX_OF(2 * now.low, (uint64_t)EVICT_LEAST) - MIN_OF(now.total - now.used, now.low);
    uint64_t freed = grants_share(g, lacks / chunk_frames + 1) * chunk_frames;
    if (freed == 0 && now.total > 0 && !wait && leave_to_others(g, &now)) {
        atomic_store(&out_of(g)->woken, 1); /* who claims frames need not wake us meanwhile */
        return OTHERS_MS;
    }
    if (freed == 0 && now.total > 0)
        freed = shared_out(g, lacks);
    look(g);
    if (freed == 0)
        return wait ? AGAIN_MS : TICK_MS;
    shared_frames_freed(g);
    return 0;
}

static void end_objects(group *g) {
    for (uint32_t i = 0; i < OBJECTS_MAX; i++) {
        object_entry *object = group_object(g, i);
        object_state state = object_state_of(atomic_load(&object->state));
        if (state == OBJECT_DYING || (state == OBJECT_LIVE && atomic_load(&object->mappers) == MAPPERS_CLOSED))
            objects_end(g, i);
    }
}

static void *run(void *argument) {
    group *g = argument;
    out_state *s = out_of(g);
    struct pollfd ready = {.fd = g->out_wake_fd, .events = POLLIN};
    uint64_t ended_ns = 0;
    prctl(PR_SET_NAME, "uswap-shout");
    for (int timeout_ms = 0; !atomic_load(&g->stop);) {
        if (poll(&ready, 1, timeout_ms) > 0) {
            uint64_t count;
            ssize_t ignored = read(g->out_wake_fd, &count, sizeof count);
            (void)ignored;
        }
        atomic_store(&s->woken, 0);
        timeout_ms = keep_free(g);
        if (clock_now_ns() - ended_ns > ENDING_NS) {
            end_objects(g);
            heat_look_at_priorities(g);
            ended_ns = clock_now_ns();
        }
    }
    return NULL;
}

void shared_out_wake(group *g) {
    out_state *s = out_of(g);
    if (!s || atomic_load(&s->woken) || atomic_exchange(&s->woken, 1))
        return;
    uint64_t one = 1;
    ssize_t ignored = write(g->out_wake_fd, &one, sizeof one);
    (void)ignored;
}

/* ---- made, ended ---- */

static size_t memory_bytes(const out_state *s) {
    return (size_t)s->batches * s->batch_pages << PAGE_SHIFT;
}

static int make_memory(group *g) {
    out_state *s = out_of(g);
    uint64_t limit_frames = g->sized_bytes >> PAGE_SHIFT;
    s->together = shared_out_together(limit_frames);
    s->batch_pages = shared_out_batch_pages(limit_frames);
    s->batches = shared_out_batches(limit_frames);
    s->under_way_bytes = (commons_head(&g->commons)->frames + 63) / 64 * sizeof(uint64_t);
    s->under_way = memory_map(s->under_way_bytes);
    s->memory = memory_map(memory_bytes(s));
    if (!s->memory || !s->under_way)
        return -ENOMEM;
    frame_charge_over(g->pool, memory_bytes(s) >> PAGE_SHIFT);
    atomic_fetch_add(&g->bounce_frames, memory_bytes(s) >> PAGE_SHIFT);
    madvise(s->memory, memory_bytes(s), MADV_HUGEPAGE);
    for (uint32_t i = 0; i < s->batches; i++)
        s->batch[i].memory = s->memory + ((size_t)i * s->batch_pages << PAGE_SHIFT);
    return 0;
}

static int start_thread(group *g) {
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, MAX_OF(STACK_BYTES, (size_t)PTHREAD_STACK_MIN));
    int status = pthread_create(&g->out_thread, &attributes, run, g); /* signals are blocked: api_enter */
    pthread_attr_destroy(&attributes);
    out_of(g)->started = status == 0;
    return -status;
}

int shared_out_start(group *g) {
    out_state *s = memory_map(sizeof(out_state));
    if (!s)
        return -ENOMEM;
    g->out_wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    g->out_state = s;
    int status = g->out_wake_fd < 0 ? -errno : make_memory(g);
    if (status == 0)
        status = io_queue_init(&g->write_io, (uswap_io_kind)g->pool->options.io_kind, IO_AT_ONCE, WRITE_REQUESTS, NULL);
    if (status == 0)
        status = start_thread(g);
    if (status != 0)
        shared_out_stop(g);
    return status;
}

/* Context: before shared_thread_stop; nobody else evicts any more. */
void shared_out_stop(group *g) {
    out_state *s = out_of(g);
    if (!s)
        return;
    if (s->started) {
        atomic_store(&g->stop, 1);
        atomic_store(&s->woken, 0);
        shared_out_wake(g);
        pthread_join(g->out_thread, NULL);
        say_starved(g, 0);
    }
    io_queue_fini(&g->write_io);
    if (s->memory && s->under_way) {
        frame_uncharge(g->pool, memory_bytes(s) >> PAGE_SHIFT);
        atomic_fetch_sub(&g->bounce_frames, memory_bytes(s) >> PAGE_SHIFT);
    }
    memory_unmap(s->memory, memory_bytes(s));
    memory_unmap(s->under_way, s->under_way_bytes);
    g->out_state = NULL;
    memory_unmap(s, sizeof *s);
    if (g->out_wake_fd >= 0)
        close(g->out_wake_fd);
    g->out_wake_fd = -1;
}
