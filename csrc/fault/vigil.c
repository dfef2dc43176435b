#define _GNU_SOURCE
#include "fault/vigil.h"

#include "base/awake.h"
#include "base/proc_stat.h"

#include <limits.h>
#include <sched.h>
#include <sys/prctl.h>
#include <unistd.h>

#define STACK_BYTES ((size_t)64 << 10)
/* Faults of one thread this close, so many of them, are a row; and the next is awaited for so long. */
#define ROW_LEAST 8
#define APART_NS UINT64_C(1000000)
#define AWAIT_NS UINT64_C(250000)
/* Turns between two looks at the clock; and how often it is looked where the thread that it waits for runs. */
#define TURNS 50
#define FOLLOW_NS UINT64_C(10000000)

/* ---- the processor of a thread ---- */

/* Return: its number, or -1. */
static int processor_of(uint32_t tid) {
    proc_stat stat;
    uint64_t processor;
    proc_stat_of_thread(&stat, tid);
    return proc_stat_number(&stat, PROC_STAT_PROCESSOR, &processor) && processor < (uint64_t)CPU_SETSIZE
               ? (int)processor
               : -1;
}

static void follow(uint32_t tid) {
    cpu_set_t set;
    int processor = processor_of(tid);
    if (processor < 0)
        return;
    CPU_ZERO(&set);
    CPU_SET((size_t)processor, &set);
    sched_setaffinity(0, sizeof set, &set); /* refused: it stays where it is */
}

/* ---- the thread ---- */

static void turn_round(vigil *v) {
    uint64_t followed_ns = 0, now = clock_now_ns();
    uint32_t followed = 0;
    while (now < atomic_load(&v->until_ns) && !atomic_load(&v->stop)) {
        uint32_t tid = atomic_load(&v->tid);
        if (tid != followed || now - followed_ns > FOLLOW_NS) {
            follow(tid);
            followed = tid;
            followed_ns = now;
        }
        for (int turn = 0; turn < TURNS; turn++)
            cpu_relax();
        now = clock_now_ns();
    }
}

static void *run(void *argument) {
    vigil *v = argument;
    struct sched_param none = {0};
    prctl(PR_SET_NAME, "uswap-vigil");
    if (sched_setscheduler(0, SCHED_IDLE, &none) != 0)
        return NULL; /* it would be in the way of others */
    for (;;) {
        uint32_t seen = event_count(&v->called);
        if (atomic_load(&v->stop)) /* looked at after the count, so that its signal is not slept through */
            break;
        atomic_store(&v->asleep, 1);
        /* Sequentially consistent with vigil_note: either it sees that this thread sleeps, or this sees its call. */
        if (clock_now_ns() >= atomic_load(&v->until_ns))
            event_wait(&v->called, seen, 0);
        atomic_store(&v->asleep, 0);
        turn_round(v);
    }
    return NULL;
}

void vigil_start(vigil *v) {
    pthread_attr_t attributes;
    if (!awake_is_possible())
        return;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, MAX_OF(STACK_BYTES, (size_t)PTHREAD_STACK_MIN));
    v->started = pthread_create(&v->thread, &attributes, run, v) == 0; /* signals are blocked: api_enter */
    pthread_attr_destroy(&attributes);
}

void vigil_stop(vigil *v) {
    if (!v->started)
        return;
    atomic_store(&v->stop, 1);
    event_signal(&v->called);
    pthread_join(v->thread, NULL);
    v->started = false;
}

void vigil_note(vigil *v, uint32_t tid, uint64_t now_ns) {
    bool follows = tid == v->last_tid && now_ns - v->last_ns < APART_NS;
    v->in_a_row = follows ? MIN_OF(v->in_a_row + 1, (uint32_t)ROW_LEAST) : 0;
    v->last_tid = tid;
    v->last_ns = now_ns;
    if (!v->started || v->in_a_row < ROW_LEAST)
        return;
    atomic_store(&v->tid, tid);
    atomic_store(&v->until_ns, now_ns + AWAIT_NS);
    if (atomic_load(&v->asleep) && atomic_exchange(&v->asleep, 0))
        event_signal(&v->called);
}
