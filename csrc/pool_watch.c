#include "pool_watch.h"

#include "pool.h"
#include "shared/group.h"

#include <limits.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

/* A disk that only has much to do answers sooner; a person who waits begins to wonder. */
#define STALL_NS UINT64_C(5000000000)
#define LOOK_NS UINT64_C(1000000000)
#define HELD_UP_NS (2 * LOOK_NS)
#define STACK_BYTES ((size_t)64 << 10)

static const char STALLED[] = "uswap: a swap disk has not answered for 5 s: whoever needs a page from it waits until "
                              "it does; pages in memory are "
                              "served (pool.stats().unanswered_ns)\n";

static uint64_t oldest_of(uint64_t oldest_ns, const io_queue *queue) {
    uint64_t sent_ns = io_unanswered_since(queue);
    return sent_ns != 0 && sent_ns < oldest_ns ? sent_ns : oldest_ns;
}

uint64_t watch_unanswered_ns(uswap_pool *pool) {
    uint64_t now = clock_now_ns(), oldest = now;
    oldest = oldest_of(oldest, &pool->fault_context.io);
    oldest = oldest_of(oldest, &pool->reclaim_context.io);
    for (int i = 0; i < API_CONTEXTS; i++)
        oldest = oldest_of(oldest, &pool->api_contexts[i].io);
    for (int i = 0; i < INLINE_CONTEXTS && atomic_load(&pool->inlines.uffd) >= 0; i++)
        oldest = oldest_of(oldest, &pool->inlines.contexts[i].io);
    const group *g = atomic_load(&pool->group);
    if (g) { /* its memory stays until the pool ends, whatever becomes of the queues */
        oldest = oldest_of(oldest, &g->read_io);
        oldest = oldest_of(oldest, &g->write_io);
    }
    return now - oldest;
}

static void *run(void *argument) {
    uswap_pool *pool = argument;
    pool_watch *self = &pool->watch;
    bool said = false;
    uint64_t looked_ns = clock_now_ns(), running_since_ns = looked_ns;
    prctl(PR_SET_NAME, "uswap-watch");
    for (;;) {
        uint32_t seen = event_count(&self->stopping);
        if (atomic_load(&self->stop)) /* looked at after the count, so that its signal is not slept through */
            return NULL;
        uint64_t now = clock_now_ns();
        if (now - looked_ns > HELD_UP_NS) /* this process was stopped: answers have come that it could not take */
            running_since_ns = now;
        looked_ns = now;
        bool stalled = watch_unanswered_ns(pool) >= STALL_NS && now - running_since_ns >= STALL_NS;
        if (stalled && !said) {
            STAT_ADD(pool, disk_stalls, 1);
            ssize_t ignored = write(STDERR_FILENO, STALLED, sizeof STALLED - 1);
            (void)ignored;
        }
        said = stalled;
        event_wait(&self->stopping, seen, LOOK_NS);
    }
}

int watch_start(uswap_pool *pool) {
    pthread_attr_t attributes;
    pool->watch = (pool_watch){0};
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, MAX_OF(STACK_BYTES, (size_t)PTHREAD_STACK_MIN));
    int status = pthread_create(&pool->watch.thread, &attributes, run, pool); /* signals are blocked: api_enter */
    pthread_attr_destroy(&attributes);
    pool->watch.started = status == 0;
    return -status;
}

void watch_stop(uswap_pool *pool) {
    pool_watch *self = &pool->watch;
    if (!self->started)
        return;
    atomic_store(&self->stop, 1);
    event_signal(&self->stopping);
    pthread_join(self->thread, NULL);
    self->started = false;
}
