/*
 * shared_thread.c - the thread "uswap-share": messages of g->uffd, ends of reads, orders of API calls, parked faults, in one poll.
 *
 * As the fault thread: no malloc, no stdio, all signals blocked, and it waits for nobody.
 */
#define _GNU_SOURCE
#include "shared/shared_core.h"

#include "base/failpoint.h"
#include "base/memory.h"
#include "fault/uffd.h"
#include "pool.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#define MESSAGES 64
#define BUSY_REQUESTS 16
#define ENDED_MAX 64
#define STACK_BYTES ((size_t)256 << 10)
/* Parked faults are tried again so often, if nobody says before that frames have come free. */
#define PARKED_MS 2
/* Faults that wait for somebody else are looked at again so often, whoever should have woken them. */
#define WAITING_MS 50
#define PASS_LOOK_NS UINT64_C(2000000)

/* Whether the kernel makes huge pages for files in memory that nobody has advised it to: then there are zeroes beside each page that is made. */
static bool has_huge_files(void) {
    char text[128];
    int fd = open("/sys/kernel/mm/transparent_hugepage/shmem_enabled", O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    if (fd >= 0)
        close(fd);
    text[MAX_OF(length, (ssize_t)0)] = '\0';
    return strstr(text, "[always]") || strstr(text, "[within_size]") || strstr(text, "[force]");
}

int shared_uffd_open(group *g) {
    uint64_t offered = 0;
    uint64_t needed = UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM |
                      UFFD_FEATURE_WP_HUGETLBFS_SHMEM;
    int status = uffd_query_features(&offered);
    if (status == 0 && (offered & needed) != needed)
        status = -EOPNOTSUPP;
    if (status != 0)
        return status;
    int uffd = uffd_open(UFFD_ALL_FAULTS);
    if (uffd == -EPERM || uffd == -EACCES) {
        uffd = uffd_open(UFFD_USER_ONLY);
        g->user_mode_only = uffd >= 0;
    }
    if (uffd < 0)
        return uffd;
    status = uffd_handshake(uffd, needed | (offered & UFFD_FEATURE_POISON));
    if (status != 0) {
        close(uffd);
        return status;
    }
    g->uffd = uffd;
    g->seals = shared_seal_works(uffd);
    g->shows = g->seals && !has_huge_files();
    return 0;
}

/* ---- parked faults ---- */

static void park(group *g, shared_parked fault) {
    share_state *s = share_of(g);
    FAILPOINT(fault_park);
    if (s->parked_count == SHARED_PARKED_MAX) { /* the thread faults again, and its next message waits in the kernel */
        uffd_wake(g->uffd, shared_address(fault.r, fault.page), PAGE_BYTES);
        shared_region_put(fault.r);
        return;
    }
    s->parked[(s->parked_first + s->parked_count++) % SHARED_PARKED_MAX] = fault;
}

/* Serves one fault, or parks it. Takes the reference. Return: false: there is no frame. */
static bool serve(group *g, shared_parked fault) {
    /* Going: its memory is about to be somebody else's; or it is shorter than it was. */
    if (!atomic_load(&fault.r->live) || fault.page >= fault.r->pages) {
        uffd_wake(g->uffd, shared_address(fault.r, fault.page), PAGE_BYTES);
        shared_region_put(fault.r);
        return true;
    }
    shared_result result = shared_fault(g, fault.r, fault.page);
    if (result == SHARED_NO_FRAME || result == SHARED_AGAIN) {
        park(g, fault);
        return result == SHARED_AGAIN;
    }
    shared_region_put(fault.r);
    return true;
}

static void retry_parked(group *g) {
    share_state *s = share_of(g);
    for (uint32_t left = s->parked_count; left > 0; left--) {
        shared_parked fault = s->parked[s->parked_first];
        s->parked_first = (s->parked_first + 1) % SHARED_PARKED_MAX;
        s->parked_count--;
        if (!serve(g, fault))
            break;
    }
    if (s->parked_count > 0) {
        atomic_store(&s->wants_frames, 1);
        shared_out_wake(g);
    }
}

void shared_frames_freed(group *g) {
    share_state *s = share_of(g);
    if (s && atomic_load(&s->wants_frames) && atomic_exchange(&s->wants_frames, 0))
        shared_thread_wake(g);
}

/* ---- orders ---- */

void shared_thread_wake(group *g) {
    uint64_t one = 1;
    ssize_t ignored = write(g->share_wake_fd, &one, sizeof one);
    (void)ignored;
}

uint64_t shared_order_give(group *g, const shared_order *order) {
    share_state *s = share_of(g);
    uint64_t number = 0;
    small_lock_acquire(&s->orders_lock);
    if (s->orders_count < SHARED_ORDERS) {
        s->orders[(s->orders_first + s->orders_count) % SHARED_ORDERS] = *order;
        s->orders_count++; /* after it: who follows orders looks at this alone */
        number = atomic_load(&s->orders_ended) + s->orders_count;
    }
    small_lock_release(&s->orders_lock);
    if (number > 0)
        shared_thread_wake(g);
    return number;
}

bool shared_thread_pass(group *g, uint64_t deadline_ns) {
    share_state *s = share_of(g);
    shared_order nothing = {.object = OBJECTS_MAX};
    uint64_t number = shared_order_give(g, &nothing);
    for (;;) {
        uint32_t seen = event_count(&s->progress);
        if (number != 0 && atomic_load(&s->orders_ended) >= number)
            return true;
        if (number == 0 || clock_now_ns() > deadline_ns)
            return false;
        event_wait(&s->progress, seen, PASS_LOOK_NS);
    }
}

/* Pages that are to be held: nothing may fault there, and a system call's store to a sealed one would. */
static void unseal(group *g, shared_region *r, size_t page) {
    uint64_t word = shared_load(&r->words[page]);
    if (shared_state_of(word) != SHARED_RESIDENT || !(word & SHARED_SEALED))
        return;
    at_work_begin(g, r, page, 1);
    shared_unseal(g, r, page, 1);
    at_work_end(g);
}

/* In memory, and to be mapped. Return: how many pages are done with; 0: there is no frame. */
static size_t map_ordered(group *g, shared_region *r, shared_order *order, shared_state state) {
    size_t page = order->page;
    unseal(g, r, page);
    r->soft.next = 0; /* of no fault yet */
    shared_result result = shared_fault(g, r, page);
    uint64_t word = shared_load(&r->words[page]);
    order->missed |= result != SHARED_DONE || shared_is_taken(word) || (word & SHARED_SEALED);
    if (result == SHARED_DONE && state == SHARED_RESIDENT && r->soft.next > page)
        return MIN_OF(r->soft.next - page, (size_t)order->pages);
    return result != SHARED_NO_FRAME;
}

/* As much of it as can be done now. */
static void follow(group *g, shared_region *r, shared_order *order) {
    while (order->pages > 0) {
        shared_state state = shared_state_of(shared_load(&r->words[order->page]));
        size_t done = 1;
        if (state == SHARED_SWAPPED || state == SHARED_READING) {
            done = shared_in_range(g, r, order->page, 1);
            order->missed = true;
        } else if (order->map && state != SHARED_POISONED) {
            done = map_ordered(g, r, order, state);
        } else if (state == SHARED_LEAVING) {
            shared_break_leave(g, r, order->page);
        }
        if (done == 0)
            return;
        order->page += done;
        order->pages -= done;
    }
}

static void follow_orders(group *g) {
    share_state *s = share_of(g);
    while (s->orders_count > 0) {
        shared_order *order =
            &s->orders[s->orders_first]; /* stays where it is: only this thread takes from the front */
        shared_region *r = shared_region_get(g, order->object);
        if (r && order->page < r->pages && order->pages <= r->pages - order->page)
            follow(g, r, order);
        else
            order->pages = 0;
        if (r)
            shared_region_put(r);
        if (order->pages > 0)
            return;
        small_lock_acquire(&s->orders_lock);
        if (order->missed)
            atomic_store(&s->orders_missed, atomic_load(&s->orders_ended) + 1);
        s->orders_first = (s->orders_first + 1) % SHARED_ORDERS;
        s->orders_count--;
        atomic_fetch_add(&s->orders_ended, 1);
        small_lock_release(&s->orders_lock);
        event_signal(&s->progress);
    }
}

/* ---- messages ---- */

static void serve_message(group *g, uintptr_t address) {
    size_t page;
    shared_region *r = shared_region_at(g, address, &page);
    if (!r) {
        uffd_wake(g->uffd, (void *)(address & ~(PAGE_BYTES - 1)), PAGE_BYTES); // NOLINT
        return;
    }
    serve(g, (shared_parked){.r = r, .page = page, .since_ns = clock_now_ns()});
}

/* In the order of addresses, each page once. Return: how many there are now. */
static size_t insert(uintptr_t *pages, size_t count, uintptr_t page) {
    size_t at = count;
    while (at > 0 && pages[at - 1] > page)
        at--;
    if (at > 0 && pages[at - 1] == page)
        return count;
    for (size_t i = count; i > at; i--)
        pages[i] = pages[i - 1];
    pages[at] = page;
    return count + 1;
}

static void read_messages(group *g) {
    struct uffd_msg messages[MESSAGES];
    uintptr_t pages[MESSAGES];
    size_t count = 0;
    ssize_t length = read(g->uffd, messages, sizeof messages);
    for (ssize_t i = 0; i < length / (ssize_t)sizeof *messages; i++)
        if (messages[i].event == UFFD_EVENT_PAGEFAULT)
            count = insert(pages, count, (uintptr_t)messages[i].arg.pagefault.address & ~(PAGE_BYTES - 1));
    for (size_t i = 0; i < count; i++)
        serve_message(g, pages[i]);
}

/* Whoever has waited too long looks again. */
static void look_at_waiting(group *g) {
    share_state *s = share_of(g);
    uint64_t now = clock_now_ns();
    if (!s->waits)
        return;
    s->waits = false;
    for (uint32_t i = 0; i < atomic_load(&g->regions_end); i++) {
        shared_region *r = &g->regions[i];
        uint64_t since = atomic_load(&r->waiting_ns);
        if (since == 0 || !atomic_load(&r->live))
            continue;
        s->waits = true;
        if (now - since < WAITING_MS * UINT64_C(1000000))
            continue;
        atomic_store(&r->waiting_ns, 0);
        uffd_wake(g->uffd, r->base, r->pages << PAGE_SHIFT);
    }
}

/* ---- the thread ---- */

/* What a window has left is asked for with the memory of each read that ends (rest_of), and is sent at once: where many reads have ended together, the disk
 * would else have nothing to do until the last of them has been brought in, and this thread nothing after that. */
static void end_reads(group *g) {
    for (int ended = 0; ended < ENDED_MAX && shared_in_complete(g, false); ended++) {
        io_flush(&g->read_io);
        if (g->read_io.in_flight < BUSY_REQUESTS && share_of(g)->parked_count == 0) {
            read_messages(g);
            shared_in_send(g);
        }
    }
}

static int turn(group *g) {
    share_state *s = share_of(g);
    end_reads(g);
    if (s->parked_count > 0)
        retry_parked(g);
    read_messages(g);
    follow_orders(g);
    shared_in_send(g);
    shared_in_give_back_frames(g);
    look_at_waiting(g);
    if (io_has_ended(&g->read_io))
        return 0;
    if (s->parked_count > 0 || s->orders_count > 0)
        return PARKED_MS;
    return s->waits ? WAITING_MS : -1;
}

static void wait_ready(group *g, struct pollfd *ready, int timeout_ms) {
    share_state *s = share_of(g);
    awake_wait wait = awake_begin();
    bool found = false;
    if (timeout_ms != 0 && awake_pays(&s->record))
        do
            found = poll(ready, 3, 0) > 0;
        while (!found && awake_go_on(&s->record, &wait));
    if (!found)
        poll(ready, 3, timeout_ms);
    awake_note(&s->record, clock_now_ns() - wait.begin_ns);
}

static void *run(void *argument) {
    group *g = argument;
    struct pollfd ready[3] = {{.fd = g->uffd, .events = POLLIN},
                              {.fd = g->share_wake_fd, .events = POLLIN},
                              {.fd = io_poll_fd(&g->read_io), .events = POLLIN}};
    prctl(PR_SET_NAME, "uswap-share");
    for (int timeout_ms = 0; !atomic_load(&g->stop);) {
        wait_ready(g, ready, timeout_ms);
        if (ready[1].revents) {
            uint64_t count;
            ssize_t ignored = read(g->share_wake_fd, &count, sizeof count);
            (void)ignored;
        }
        timeout_ms = turn(g);
    }
    shared_in_send(g);
    while (shared_in_complete(g, true)) {
    }
    shared_in_give_back_frames(g);
    return NULL;
}

/* Bounce frames: counted, as the pool's own. */
static int make_memory(group *g) {
    share_state *s = share_of(g);
    s->units = shared_in_units(g->sized_bytes >> PAGE_SHIFT);
    size_t pages = (size_t)s->units * IN_UNIT_PAGES + IN_SINGLES;
    s->memory_bytes = pages << PAGE_SHIFT;
    s->memory = memory_map(s->memory_bytes);
    s->parked = memory_map(SHARED_PARKED_MAX * sizeof *s->parked);
    if (!s->memory || !s->parked)
        return -ENOMEM;
    frame_charge_over(g->pool, pages);
    atomic_fetch_add(&g->bounce_frames, pages);
    madvise(s->memory, s->memory_bytes, MADV_HUGEPAGE);
    madvise(s->memory, s->memory_bytes, MADV_POPULATE_WRITE);
    unsigned char *at = s->memory;
    for (uint32_t i = 0; i < IN_UNITS + IN_SINGLES; i++) {
        s->unit[i].single = i >= IN_UNITS;
        s->unit[i].memory = at;
        if (i < s->units)
            at += IN_UNIT_PAGES << PAGE_SHIFT;
        else if (i >= IN_UNITS)
            at += PAGE_BYTES;
    }
    return 0;
}

static void free_memory(group *g) {
    share_state *s = share_of(g);
    if (!s)
        return;
    if (s->memory && s->parked) {
        frame_uncharge(g->pool, s->memory_bytes >> PAGE_SHIFT);
        atomic_fetch_sub(&g->bounce_frames, s->memory_bytes >> PAGE_SHIFT);
    }
    memory_unmap(s->memory, s->memory_bytes);
    memory_unmap(s->parked, SHARED_PARKED_MAX * sizeof *s->parked);
    memory_unmap(s, sizeof *s);
    g->share_state = NULL;
}

static int start_thread(group *g) {
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, MAX_OF(STACK_BYTES, (size_t)PTHREAD_STACK_MIN));
    int status = pthread_create(&g->share_thread, &attributes, run, g); /* signals are blocked: api_enter */
    pthread_attr_destroy(&attributes);
    share_of(g)->started = status == 0;
    return -status;
}

int shared_thread_start(group *g) {
    g->share_state = memory_map(sizeof(share_state));
    if (!g->share_state)
        return -ENOMEM;
    share_of(g)->record.off = !g->pool->options.awake;
    int status = make_memory(g);
    if (status == 0)
        status = io_queue_init(&g->read_io, (uswap_io_kind)g->pool->options.io_kind, IO_AT_ONCE, IN_UNITS + IN_SINGLES,
                               NULL);
    if (status == 0) {
        g->share_wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        status = g->share_wake_fd < 0 ? -errno : start_thread(g);
    }
    if (status != 0)
        shared_thread_stop(g);
    return status;
}

/* Context: g->stop is set, or the thread was never started; regions are unmapped. */
void shared_thread_stop(group *g) {
    share_state *s = share_of(g);
    if (!s)
        return;
    if (s->started) {
        atomic_store(&g->stop, 1);
        shared_thread_wake(g);
        pthread_join(g->share_thread, NULL);
    }
    io_queue_fini(&g->read_io);
    if (g->share_wake_fd > 0)
        close(g->share_wake_fd);
    g->share_wake_fd = -1;
    free_memory(g);
}
