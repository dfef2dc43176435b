#define _GNU_SOURCE
#include "fault/fault_thread.h"

#include "base/failpoint.h"
#include "base/memory.h"
#include "fault/fault.h"
#include "fault/signal.h"
#include "fault/uffd.h"
#include "reclaim/direct.h"
#include "region/stall.h"
#include "swap/page_in_ahead.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <unistd.h>

/* Messages read by one call. */
#define MESSAGES 64
/* So many requests keep the disk busy for as long as it takes to end some. With more in flight what a stream asks for would find none left, and
 * be cut into small pieces with a marker each. */
#define BUSY_REQUESTS 32
/* Reads ended in one turn: each may bring new ones, and there is more to be looked after. */
#define ENDED_MAX 256
/* How often the SIGBUS handler is looked after while there are inline regions. */
#define ARM_MS 200
#define STACK_BYTES ((size_t)256 << 10)

/* ---- parked faults ---- */

static void park(uswap_pool *pool, parked_fault fault) {
    fault_thread *self = &pool->faults;
    FAILPOINT(fault_park);
    if (self->parked_count == PARKED_MAX) {
        /* Too many to remember: the thread faults again, and its next message waits in the kernel. */
        region *r = region_get_by_ref(&pool->regions, fault.page);
        if (r) {
            uffd_wake(pool->uffd, region_address(r, page_ref_page(fault.page)), PAGE_BYTES);
            region_put(r);
        }
        return;
    }
    self->parked[(self->parked_first + self->parked_count++) % PARKED_MAX] = fault;
}

/* Nothing more is to be done for it here: who waits is woken when the page is in. */
static bool is_served(fault_result result) {
    return result == FAULT_DONE || result == FAULT_READING;
}

/* Serves one fault; parks it if it cannot be served now. */
static fault_result serve(uswap_pool *pool, parked_fault fault) {
    region *r = region_get_by_ref(&pool->regions, fault.page);
    if (!r)
        return FAULT_GONE;
    if (page_ref_page(fault.page) >= r->object.pages) { /* parked before the region shrank, and woken then */
        region_put(r);
        return FAULT_GONE;
    }
    bool patient = clock_now_ns() - fault.since_ns < FAULT_PATIENCE_NS;
    unsigned how = (fault.write ? FAULT_WRITE : 0U) | (patient ? FAULT_PATIENT : 0U);
    fault_result result = fault_serve(&pool->fault_context, r, page_ref_page(fault.page), how);
    if (result == FAULT_GONE)
        uffd_wake(pool->uffd, region_address(r, page_ref_page(fault.page)), PAGE_BYTES);
    if (is_served(result))
        stall_note(pool, r, page_ref_page(fault.page), clock_now_ns() - fault.since_ns);
    region_put(r);
    if (result == FAULT_NO_FRAME || result == FAULT_AGAIN)
        park(pool, fault);
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
        fault_result result = serve(pool, fault);
        served += is_served(result);
        if (result == FAULT_NO_FRAME)
            break;
    }
    return served;
}

/* ---- frames for parked faults ---- */

/* The oldest parked fault is served over the limit: it must not wait for what cannot happen (I9). The frame is the first to be given back: no
 * charge succeeds before. Return: whether it is served. */
static bool go_over_limit(uswap_pool *pool) {
    fault_thread *self = &pool->faults;
    parked_fault fault = self->parked[self->parked_first];
    self->parked_first = (self->parked_first + 1) % PARKED_MAX;
    self->parked_count--;
    direct_grant(pool);
    fault_result result = serve(pool, fault);
    direct_revoke(pool);
    return is_served(result);
}

/* There are parked faults: gets them served or finds out how long to wait. Return: timeout for poll in ms, -1: no limit. */
static int tend_parked(uswap_pool *pool) {
    fault_thread *self = &pool->faults;
    while (self->parked_count > 0) {
        int wait_ms;
        /* Sequentially consistent with frame_uncharge: either it sees that we wait, or we see its frames. */
        atomic_store(&self->wants_frames, 1);
        if (retry_parked(pool) > 0)
            continue;
        context_submit(&pool->fault_context);
        uint64_t waited = clock_now_ns() - self->parked[self->parked_first].since_ns;
        direct_outcome outcome = direct_reclaim(&pool->fault_context, waited, &wait_ms);
        if (outcome == DIRECT_WAIT || (outcome == DIRECT_NOTHING && !go_over_limit(pool)))
            return wait_ms;
    }
    return -1;
}

/* ---- orders ---- */

void fault_thread_wake(uswap_pool *pool) {
    uint64_t one = 1;
    ssize_t ignored = write(pool->faults.wake_fd, &one, sizeof one);
    (void)ignored;
}

bool fault_thread_order(uswap_pool *pool, const read_order *order) {
    fault_thread *self = &pool->faults;
    small_lock_acquire(&self->orders_lock);
    bool room = self->orders_count < READ_ORDERS;
    if (room)
        self->orders[(self->orders_first + self->orders_count++) % READ_ORDERS] = *order;
    small_lock_release(&self->orders_lock);
    /* Sequentially consistent against "set asleep, then look for orders": one of the two sees the other. */
    if (room && atomic_load(&self->asleep) && atomic_exchange(&self->asleep, 0))
        fault_thread_wake(pool);
    return room;
}

static bool take_order(fault_thread *self, read_order *order) {
    if (self->orders_count == 0)
        return false;
    small_lock_acquire(&self->orders_lock);
    bool found = self->orders_count > 0;
    if (found) {
        *order = self->orders[self->orders_first];
        self->orders_first = (self->orders_first + 1) % READ_ORDERS;
        self->orders_count--;
    }
    small_lock_release(&self->orders_lock);
    return found;
}

static void fill_orders(uswap_pool *pool) {
    read_order order;
    while (take_order(&pool->faults, &order)) {
        region *r = region_get_by_ref(&pool->regions, order.region);
        if (!r)
            continue;
        page_in_plan(&pool->fault_context, r, order.plan, order.stream);
        context_submit(&pool->fault_context);
        region_put(r);
    }
}

/* ---- messages ---- */

static bool is_store(const struct uffd_msg *message) {
    return message->arg.pagefault.flags & (UFFD_PAGEFAULT_FLAG_WRITE | UFFD_PAGEFAULT_FLAG_WP);
}

static void serve_message(uswap_pool *pool, const struct uffd_msg *message) {
    FAILPOINT(fault_message);
    uintptr_t address = (uintptr_t)message->arg.pagefault.address;
    uint64_t now = clock_now_ns();
    region *r = region_get_by_address(&pool->regions, address);
    if (!r) { /* a region that is going: its memory is about to be ordinary again */
        uffd_wake(pool->uffd, (void *)(address & ~(PAGE_BYTES - 1)), PAGE_BYTES);
        return;
    }
    parked_fault fault = {.page = page_ref_of(r, (address - (uintptr_t)r->base) >> PAGE_SHIFT),
                          .since_ns = now,
                          .write = is_store(message)};
    region_put(r);
    uint64_t reads = pool->fault_context.demand_reads;
    fault_result result = serve(pool, fault);
    if (pool->fault_context.demand_reads != reads)
        vigil_note(&pool->faults.vigil, message->arg.pagefault.feat.ptid, now);
    if (result == FAULT_NO_FRAME || result == FAULT_AGAIN)
        STAT_ADD(pool, parked_faults, 1);
    if (result == FAULT_NO_FRAME && atomic_load(&pool->writes_in_flight) > 0)
        STAT_ADD(pool, write_waits, 1);
}

/* Puts the message in its place among those before it: by address, so that neighbours share a request; of several on one page one is left.
 * Return: how many there are now. */
static size_t insert_message(uswap_pool *pool, struct uffd_msg *messages, size_t count, struct uffd_msg message) {
    size_t at = count;
    while (at > 0 && messages[at - 1].arg.pagefault.address > message.arg.pagefault.address)
        at--;
    if (at > 0 && messages[at - 1].arg.pagefault.address == message.arg.pagefault.address) {
        messages[at - 1].arg.pagefault.flags |= message.arg.pagefault.flags;
        STAT_ADD(pool, duplicate_faults, 1);
        return count;
    }
    for (size_t i = count; i > at; i--)
        messages[i] = messages[i - 1];
    messages[at] = message;
    return count + 1;
}

static void read_messages(uswap_pool *pool) {
    struct uffd_msg messages[MESSAGES];
    ssize_t length = read(pool->uffd, messages, sizeof messages);
    size_t count = 0;
    for (ssize_t i = 0; i < length / (ssize_t)sizeof *messages; i++)
        if (messages[i].event == UFFD_EVENT_PAGEFAULT)
            count = insert_message(pool, messages, count, messages[i]);
    for (size_t i = 0; i < count; i++)
        serve_message(pool, &messages[i]);
}

static void read_wake(fault_thread *self) {
    uint64_t count;
    ssize_t ignored = read(self->wake_fd, &count, sizeof count);
    (void)ignored;
}

/* Others may put their handler in the place of ours, and an inline fault would end the process: the handler is looked after. */
static void look_after_handler(uswap_pool *pool) {
    uint64_t now = clock_now_ns();
    if (pool->inlines.uffd < 0 || now < pool->faults.armed_ns + ARM_MS * UINT64_C(1000000))
        return;
    pool->faults.armed_ns = now;
    signal_arm(SIGBUS);
}

/* How long poll may take, if the turn says timeout_ms. */
static int bounded(const uswap_pool *pool, int timeout_ms) {
    if (pool->faults.orders_count > 0)
        return 0;
    return timeout_ms < 0 && pool->inlines.uffd >= 0 ? ARM_MS : timeout_ms;
}

/* Whether newcomers may be served between the ends of two reads: unless there are others before them (who is parked, and who wants everybody
 * out of the gate), or the disk has enough to do. */
static bool may_read_between(uswap_pool *pool) {
    return pool->fault_context.io.in_flight < BUSY_REQUESTS && pool->faults.parked_count == 0 &&
           !atomic_load(&pool->gate.closed);
}

/* One turn: what has come in, then what is parked. Return: timeout for the next poll. */
static int turn(uswap_pool *pool) {
    context *ctx = &pool->fault_context;
    fill_orders(pool);
    /* To end a read takes a while, for which the disk should not have to wait for the next one. */
    for (int ended = 0; ended < ENDED_MAX && context_complete(ctx, false); ended++) {
        fill_orders(pool);
        if (may_read_between(pool)) {
            read_messages(pool);
            context_submit(ctx);
        }
    }
    if (pool->faults.parked_count > 0) /* before the newcomers */
        retry_parked(pool);
    read_messages(pool);
    context_submit(ctx);
    int timeout_ms = tend_parked(pool);
    context_submit(ctx);                            /* serving the parked may have started reads */
    return io_has_ended(&ctx->io) ? 0 : timeout_ms; /* the synchronous backend has ended its requests by now */
}

/* Looks around instead of sleeping. Return: whether there is something to do. */
static bool look_around(fault_thread *self, struct pollfd *ready, awake_wait *wait) {
    bool found;
    do
        found = poll(ready, 3, 0) > 0 || self->orders_count > 0;
    while (!found && awake_go_on(&self->record, wait));
    return found;
}

/* Waits for one of the three or an order, at most timeout_ms (-1: no limit); awake if sleeping has not been worth it. */
static void wait_ready(uswap_pool *pool, struct pollfd *ready, int timeout_ms) {
    fault_thread *self = &pool->faults;
    awake_wait wait = awake_begin();
    if (timeout_ms == 0 || !awake_pays(&self->record) || !look_around(self, ready, &wait)) {
        atomic_store(&self->asleep, 1);
        poll(ready, 3, bounded(pool, timeout_ms));
        atomic_store(&self->asleep, 0);
    }
    awake_note(&self->record, clock_now_ns() - wait.begin_ns);
}

static void *run(void *argument) {
    uswap_pool *pool = argument;
    fault_thread *self = &pool->faults;
    struct pollfd ready[3] = {{.fd = pool->uffd, .events = POLLIN},
                              {.fd = self->wake_fd, .events = POLLIN},
                              {.fd = io_poll_fd(&pool->fault_context.io), .events = POLLIN}};
    prctl(PR_SET_NAME, "uswap-fault");
    int timeout_ms = 0;
    while (!atomic_load(&self->stop)) {
        wait_ready(pool, ready, timeout_ms);
        look_after_handler(pool);
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
    self->record.off = !pool->options.awake;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, MAX_OF(STACK_BYTES, (size_t)PTHREAD_STACK_MIN));
    int status = pthread_create(&self->thread, &attributes, run, pool); /* signals are blocked: api_enter */
    pthread_attr_destroy(&attributes);
    self->started = status == 0;
    if (self->started && pool->options.awake)
        vigil_start(&self->vigil);
    return -status;
}

void fault_thread_stop(uswap_pool *pool) {
    fault_thread *self = &pool->faults;
    if (self->started) {
        atomic_store(&self->stop, 1);
        fault_thread_wake(pool);
        pthread_join(self->thread, NULL);
        vigil_stop(&self->vigil);
    }
    atomic_store(&self->wants_frames, 0); /* frames that come free from here on wake nobody */
    if (self->wake_fd >= 0)
        close(self->wake_fd);
    self->wake_fd = -1;
    memory_unmap(self->parked, PARKED_MAX * sizeof *self->parked);
}
