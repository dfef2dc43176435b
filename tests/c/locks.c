/*
 * locks.c - small lock, parking lot, event and gate. What each protects is an ordinary variable: ThreadSanitizer sees whether it does.
 */
#include "part.h"

#include "base/gate.h"
#include "base/lock.h"

#define TURNS 5000

/* ---- small lock ---- */

static small_lock lock;
static uint64_t counted;

static void *count(void *argument) {
    for (int i = 0; i < TURNS; i++) {
        if ((intptr_t)argument % 2 == 0 || !small_lock_try(&lock))
            small_lock_acquire(&lock);
        counted++;
        small_lock_release(&lock);
    }
    return NULL;
}

/* ---- parking: two threads take turns ---- */

static _Atomic int turn;
static int passed;

static void *take_turns(void *argument) {
    int own = (int)(intptr_t)argument;
    for (int i = 0; i < TURNS; i++) {
        for (;;) {
            uint32_t ticket = parking_ticket(&turn);
            if (atomic_load(&turn) == own)
                break;
            parking_wait(&turn, ticket, 0);
        }
        passed++;
        atomic_store(&turn, 1 - own);
        parking_wake(&turn);
    }
    return NULL;
}

/* ---- event ---- */

static event happened;
static _Atomic int made;

static void *signal_or_wait(void *argument) {
    if ((intptr_t)argument == 0) {
        for (int i = 0; i < TURNS; i++) {
            atomic_fetch_add(&made, 1);
            event_signal(&happened);
        }
        return NULL;
    }
    for (;;) {
        uint32_t seen = event_count(&happened);
        if (atomic_load(&made) == TURNS)
            return NULL;
        event_wait(&happened, seen, 0);
    }
}

/* ---- gate: who closes it may change what those inside look at ---- */

static gate door;
static uint64_t behind[2];
static _Atomic bool closed_for_good;

static void *pass_or_close(void *argument) {
    if ((intptr_t)argument != 0) {
        while (!atomic_load(&closed_for_good)) {
            gate_enter(&door);
            CHECK(behind[0] == behind[1]);
            gate_leave(&door);
        }
        return NULL;
    }
    for (int i = 0; i < TURNS / 10; i++) {
        gate_close(&door);
        behind[0]++;
        CHECK(behind[0] == behind[1] + 1);
        behind[1]++;
        gate_open(&door);
    }
    atomic_store(&closed_for_good, true);
    return NULL;
}

int main(void) {
    in_threads(THREADS, count);
    CHECK(counted == (uint64_t)THREADS * TURNS);
    CHECK(small_lock_try(&lock) && !small_lock_try(&lock));

    in_threads(2, take_turns);
    CHECK(passed == 2 * TURNS);
    uint64_t before = clock_now_ns();
    parking_wait(&passed, parking_ticket(&passed), 2000000);
    CHECK(clock_now_ns() - before >= 1000000);

    in_threads(3, signal_or_wait);
    CHECK(event_count(&happened) == TURNS);
    before = clock_now_ns();
    event_wait(&happened, event_count(&happened), 2000000);
    CHECK(clock_now_ns() - before >= 1000000);
    event_wait(&happened, event_count(&happened) - 1, 0); /* at once */

    in_threads(THREADS, pass_or_close);
    CHECK(behind[0] == TURNS / 10);
    return 0;
}
