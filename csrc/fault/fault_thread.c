#define _GNU_SOURCE
#include "fault/fault_thread.h"

#include "base/failpoint.h"
#include "base/memory.h"
#include "fault/fault.h"
#include "fault/uffd.h"
#include "reclaim/inactive.h"
#include "reclaim/page_out.h"
#include "reclaim/reclaimer.h"
#include "swap/page_in.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <unistd.h>

/* Messages read by one call. */
#define MESSAGES 64
/* How long parked faults wait for the reclaimers before this thread evicts itself. Evicting 16 MiB takes about as long. */
#define GRACE_NS UINT64_C(10000000)
/* A parked fault that waits for the kernel, or for pages that others hold for an instant, is tried again after this. */
#define RETRY_MS 1
/* The end of a write wakes this thread (by its own ring, or as freed frames); this is for writes that end badly elsewhere. */
#define WRITE_WAIT_MS 10
#define STACK_BYTES ((size_t)256 << 10)
/* To sleep and be woken takes this thread 20 to 40 us here, so it looks around for that long and a disk's latency before it sleeps;
 * but only while that has been worth it of late: of the last waits, so many more were short than long. */
#define SPIN_NS UINT64_C(120000)
#define SPIN_CREDIT_MAX 16
#define SPIN_CREDIT_LEAST 8
#define SPIN_LONG_WAIT_COSTS 4
/* A look around that takes so long has been interrupted by another thread that wants this processor: it shall have it. */
#define SPIN_INTERRUPTED_NS UINT64_C(50000)

typedef enum { MADE_FRAMES, MADE_WAIT } made;

/* ---- parked faults ---- */

static void park(uswap_pool *pool, page_ref page, uint64_t since_ns) {
    fault_thread *self = &pool->faults;
    FAILPOINT(fault_park);
    if (self->parked_count == PARKED_MAX) {
        /* Too many to remember: the thread faults again, and its next message waits in the kernel. */
        region *r = region_get_by_ref(&pool->regions, page);
        if (r) {
            uffd_wake(pool->uffd, region_address(r, page_ref_page(page)), PAGE_BYTES);
            region_put(r);
        }
        return;
    }
    self->parked[(self->parked_first + self->parked_count++) % PARKED_MAX] = (parked_fault){page, since_ns};
}

/* Serves one fault; parks it if it cannot be served now. */
static fault_result serve(uswap_pool *pool, page_ref ref, uint64_t since_ns) {
    region *r = region_get_by_ref(&pool->regions, ref);
    if (!r)
        return FAULT_GONE;
    fault_result result = fault_serve(&pool->fault_context, r, page_ref_page(ref));
    if (result == FAULT_NO_FRAME && inactive_drop(pool, pool->options.reclaim_batch_pages) > 0)
        result = fault_serve(&pool->fault_context, r, page_ref_page(ref));
    if (result == FAULT_GONE)
        uffd_wake(pool->uffd, region_address(r, page_ref_page(ref)), PAGE_BYTES);
    region_put(r);
    if (result == FAULT_NO_FRAME || result == FAULT_AGAIN)
        park(pool, ref, since_ns);
    return result;
}

/* One round over the parked faults; ends early when frames have run out. Return: how many were served. */
static uint32_t retry_parked(uswap_pool *pool) {
    fault_thread *self = &pool->faults;
    uint32_t served = 0;
    for (uint32_t left = self->parked_count; left > 0; left--) {
        parked_fault fault = self->parked[self->parked_first];
        self->parked_first = (self->parked_first + 1) % PARKED_MAX;
        self->parked_count--;
        fault_result result = serve(pool, fault.page, fault.since_ns);
        if (result == FAULT_DONE) {
            served++;
            STAT_ADD(pool, stall_ns, clock_now_ns() - fault.since_ns);
        }
        if (result == FAULT_NO_FRAME)
            break;
    }
    return served;
}

/* ---- frames for parked faults ---- */

/* Nothing can be evicted: every candidate is pinned or locked, or swap is full. A fault must not wait for what cannot happen
 * (I9), so the frame goes over the limit, and is the first to be given back: no charge succeeds before. */
static made go_over_limit(uswap_pool *pool) {
    fault_thread *self = &pool->faults;
    parked_fault fault = self->parked[self->parked_first];
    self->parked_first = (self->parked_first + 1) % PARKED_MAX;
    self->parked_count--;
    atomic_fetch_add(&pool->frames.budget->over_limit_events, 1);
    atomic_store(&pool->frames.over_grant, 1);
    fault_result result = serve(pool, fault.page, fault.since_ns);
    atomic_store(&pool->frames.over_grant, 0);
    if (result != FAULT_DONE)
        return MADE_WAIT;
    STAT_ADD(pool, stall_ns, clock_now_ns() - fault.since_ns);
    return MADE_FRAMES;
}

/* No eviction is on its way anywhere that could bring frames. */
static bool nothing_under_way(uswap_pool *pool) {
    return atomic_load(&pool->writes_in_flight) == 0 && atomic_load(&pool->evictors) == 0 &&
           pool->fault_context.io.in_flight == 0;
}

/* Direct reclaim. Return: MADE_FRAMES if it is worth trying the parked faults again at once. */
static made reclaim_directly(uswap_pool *pool) {
    context *ctx = &pool->fault_context;
    uint64_t errors = STAT_GET(pool, write_errors);
    uint64_t freed = page_out_oldest(ctx, pool->options.reclaim_batch_pages);
    context_submit(ctx);
    while (context_complete(ctx, false)) {
    }
    if (frame_pool_free(&pool->frames) > 0)
        return MADE_FRAMES;
    bool failing = STAT_GET(pool, write_errors) != errors;
    return (freed == 0 || failing) && nothing_under_way(pool) ? go_over_limit(pool) : MADE_WAIT;
}

/* There are parked faults: gets them served or finds out how long to wait. Return: timeout for poll in ms, -1: no limit. */
static int tend_parked(uswap_pool *pool) {
    fault_thread *self = &pool->faults;
    while (self->parked_count > 0) {
        /* Sequentially consistent with frame_uncharge: either it sees that we wait, or we see its frames. */
        atomic_store(&self->wants_frames, 1);
        if (retry_parked(pool) > 0)
            continue;
        context_submit(&pool->fault_context);
        if (frame_pool_free(&pool->frames) > 0)
            return RETRY_MS; /* not frames, but the kernel or the queue is short */
        uint64_t waited = clock_now_ns() - self->parked[self->parked_first].since_ns;
        if (pool->options.background && waited < GRACE_NS && !reclaimer_is_exhausted(pool) &&
            !atomic_load(&pool->slots_exhausted))
            return (int)((GRACE_NS - waited) / 1000000) + 1;
        /* What is being written now will be free soon: to evict more would be to evict too much. */
        if (atomic_load(&pool->writes_in_flight) > 0)
            return WRITE_WAIT_MS;
        if (reclaim_directly(pool) == MADE_WAIT)
            return atomic_load(&pool->writes_in_flight) > 0 ? WRITE_WAIT_MS : RETRY_MS;
    }
    return -1;
}

/* ---- prefetch orders ---- */

void fault_thread_prefetch(uswap_pool *pool, page_ref first, uint64_t pages) {
    fault_thread *self = &pool->faults;
    small_lock_acquire(&self->orders_lock);
    if (self->orders_count < PREFETCH_ORDERS) /* advice only: beyond that it is not taken */
        self->orders[self->orders_count++] = (prefetch_order){.page = first, .pages = pages};
    small_lock_release(&self->orders_lock);
    uint64_t one = 1;
    ssize_t ignored = write(self->wake_fd, &one, sizeof one);
    (void)ignored;
}

static bool take_order(fault_thread *self, prefetch_order *order) {
    small_lock_acquire(&self->orders_lock);
    bool found = self->orders_count > 0;
    if (found)
        *order = self->orders[--self->orders_count];
    small_lock_release(&self->orders_lock);
    return found;
}

static void fill_orders(uswap_pool *pool) {
    prefetch_order order;
    while (take_order(&pool->faults, &order)) {
        region *r = region_get_by_ref(&pool->regions, order.page);
        if (!r)
            continue;
        int64_t page = (int64_t)page_ref_page(order.page);
        uint32_t count = (uint32_t)MIN_OF(order.pages, (uint64_t)UINT32_MAX);
        page_in_window(&pool->fault_context, r, page, 1, count, false);
        context_submit(&pool->fault_context);
        region_put(r);
    }
}

/* ---- messages ---- */

static void serve_message(uswap_pool *pool, const struct uffd_msg *message) {
    if (message->event != UFFD_EVENT_PAGEFAULT)
        return;
    FAILPOINT(fault_message);
    uintptr_t address = (uintptr_t)message->arg.pagefault.address;
    uint64_t now = clock_now_ns();
    region *r = region_get_by_address(&pool->regions, address);
    if (!r) { /* a region that is going: its memory is about to be ordinary again */
        uffd_wake(pool->uffd, (void *)(address & ~(PAGE_BYTES - 1)), PAGE_BYTES);
        return;
    }
    page_ref ref = page_ref_of(r, (address - (uintptr_t)r->base) >> PAGE_SHIFT);
    region_put(r);
    fault_result result = serve(pool, ref, now);
    if (result == FAULT_DONE)
        STAT_ADD(pool, stall_ns, clock_now_ns() - now);
    if (result == FAULT_NO_FRAME || result == FAULT_AGAIN)
        STAT_ADD(pool, parked_faults, 1);
    if (result == FAULT_NO_FRAME && atomic_load(&pool->writes_in_flight) > 0)
        STAT_ADD(pool, write_waits, 1);
}

static void read_messages(uswap_pool *pool) {
    struct uffd_msg messages[MESSAGES];
    ssize_t length = read(pool->uffd, messages, sizeof messages);
    for (ssize_t i = 0; i < length / (ssize_t)sizeof *messages; i++)
        serve_message(pool, &messages[i]);
}

static void read_wake(fault_thread *self) {
    uint64_t count;
    ssize_t ignored = read(self->wake_fd, &count, sizeof count);
    (void)ignored;
}

/* One turn: what has come in, then what is parked. Return: timeout for the next poll. */
static int turn(uswap_pool *pool) {
    context *ctx = &pool->fault_context;
    while (context_complete(ctx, false)) {
    }
    if (pool->faults.parked_count > 0) /* before the newcomers */
        retry_parked(pool);
    read_messages(pool);
    fill_orders(pool);
    context_submit(ctx);
    int timeout_ms = tend_parked(pool);
    context_submit(ctx);                  /* serving the parked may have started reads */
    return ctx->io.done ? 0 : timeout_ms; /* the synchronous backend has ended its requests by now */
}

/* Looks around instead of sleeping. Return: what poll found; 0: nothing for too long, or others want the processor. */
static int spin(fault_thread *self, struct pollfd *ready, uint64_t begin) {
    int found = 0;
    for (uint64_t now = begin, last; found == 0 && now - begin < SPIN_NS;) {
        found = poll(ready, 3, 0);
        last = now;
        now = clock_now_ns();
        if (now - last > SPIN_INTERRUPTED_NS) {
            self->spin_credit = 0;
            break;
        }
    }
    return found;
}

/* Waits for one of the three, at most timeout_ms (-1: no limit); awake if sleeping has not been worth it. */
static void wait_ready(fault_thread *self, struct pollfd *ready, int timeout_ms) {
    uint64_t begin = clock_now_ns();
    int found = 0;
    if (self->may_spin && timeout_ms != 0 && self->spin_credit >= SPIN_CREDIT_LEAST)
        found = spin(self, ready, begin);
    if (found == 0)
        poll(ready, 3, timeout_ms);
    if (clock_now_ns() - begin < SPIN_NS)
        self->spin_credit = MIN_OF(self->spin_credit + 1, (uint32_t)SPIN_CREDIT_MAX);
    else
        self->spin_credit -= MIN_OF(self->spin_credit, (uint32_t)SPIN_LONG_WAIT_COSTS);
}

static void *run(void *argument) {
    uswap_pool *pool = argument;
    fault_thread *self = &pool->faults;
    struct pollfd ready[3] = {{.fd = pool->uffd, .events = POLLIN},
                              {.fd = self->wake_fd, .events = POLLIN},
                              {.fd = io_poll_fd(&pool->fault_context.io), .events = POLLIN}};
    prctl(PR_SET_NAME, "uswap-fault");
    int timeout_ms = 0;
    self->may_spin = sysconf(_SC_NPROCESSORS_ONLN) > 1; /* else it would only keep the others from going on */
    while (!atomic_load(&self->stop)) {
        wait_ready(self, ready, timeout_ms);
        if (ready[1].revents)
            read_wake(self);
        gate_enter(&pool->gate);
        timeout_ms = turn(pool);
        gate_leave(&pool->gate);
    }
    context_drain(&pool->fault_context);
    return NULL;
}

int fault_thread_start(uswap_pool *pool) {
    fault_thread *self = &pool->faults;
    self->parked = memory_map(PARKED_MAX * sizeof *self->parked);
    self->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (!self->parked || self->wake_fd < 0)
        return self->parked ? -errno : -ENOMEM;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, MAX_OF(STACK_BYTES, (size_t)PTHREAD_STACK_MIN));
    int status = pthread_create(&self->thread, &attributes, run, pool); /* signals are blocked: api_enter */
    pthread_attr_destroy(&attributes);
    self->started = status == 0;
    return -status;
}

void fault_thread_stop(uswap_pool *pool) {
    fault_thread *self = &pool->faults;
    if (self->started) {
        uint64_t one = 1;
        atomic_store(&self->stop, 1);
        ssize_t ignored = write(self->wake_fd, &one, sizeof one);
        (void)ignored;
        pthread_join(self->thread, NULL);
    }
    atomic_store(&self->wants_frames, 0); /* frames that come free from here on wake nobody */
    if (self->wake_fd >= 0)
        close(self->wake_fd);
    self->wake_fd = -1;
    memory_unmap(self->parked, PARKED_MAX * sizeof *self->parked);
}
