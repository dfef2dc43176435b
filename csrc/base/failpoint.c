#include "base/failpoint.h"

#include "base/lock.h"
#include "base/status.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *const names[FAILPOINT_COUNT] = {
#define FAILPOINT_NAME(id, name) [FAILPOINT_##id] = name,
    FAILPOINT_NAMES(FAILPOINT_NAME)
#undef FAILPOINT_NAME
};

EXPORT const char *uswap_failpoint_name(uint32_t index) {
    return index < FAILPOINT_COUNT ? names[index] : NULL;
}

#ifdef USWAP_FAILPOINTS

typedef struct {
    small_lock lock;
    uint32_t action;
    int64_t argument;
    uint64_t nth; /* fires when hits reaches it */
    bool every;
    bool of_page; /* only for that page; under lock */
    uint64_t page;
    _Atomic uint64_t hits;
    _Atomic uint32_t held; /* threads stopped here */
    event arrived;
    event released;
} failpoint;

static failpoint points[FAILPOINT_COUNT];
_Atomic uint32_t failpoints_armed;

static int find(const char *name, uswap_error *err) {
    for (int i = 0; i < FAILPOINT_COUNT; i++)
        if (name && strcmp(name, names[i]) == 0)
            return i;
    return error_set(err, USWAP_E_INVALID, 0, "failpoint", NULL, "no failpoint is named '%s'", name ? name : "");
}

static void stop_here(failpoint *point) {
    uint32_t seen = event_count(&point->released);
    atomic_fetch_add(&point->held, 1);
    event_signal(&point->arrived);
    while (event_count(&point->released) == seen)
        event_wait(&point->released, seen, 0);
    atomic_fetch_sub(&point->held, 1);
}

static void delay(int64_t microseconds) {
    struct timespec time = {.tv_sec = (time_t)(microseconds / 1000000),
                            .tv_nsec = (long)(microseconds % 1000000) * 1000};
    while (nanosleep(&time, &time) != 0 && errno == EINTR) {
    }
}

/* A build that counts which lines are run (make coverage) writes that down at exit, which does not come. */
static void keep_counts(void) {
#ifdef USWAP_COVERAGE
    void __gcov_dump(void);
    __gcov_dump();
#endif
}

static int hit(failpoint *point, void *data, size_t bytes) {
    uint64_t hit = atomic_fetch_add(&point->hits, 1) + 1;
    small_lock_acquire(&point->lock);
    bool fires = point->action != USWAP_FAIL_OFF && (hit == point->nth || (point->every && hit > point->nth));
    uint32_t action = point->action;
    int64_t argument = point->argument;
    small_lock_release(&point->lock);
    if (!fires)
        return 0;
    switch (action) {
    case USWAP_FAIL_ERROR:
        return -(int)argument;
    case USWAP_FAIL_DELAY:
        delay(argument);
        return 0;
    case USWAP_FAIL_STOP:
        stop_here(point);
        return 0;
    case USWAP_FAIL_KILL:
        keep_counts();
        kill(getpid(), SIGKILL);
        return 0;
    case USWAP_FAIL_FREEZE:
        raise(SIGSTOP); /* of this thread: it goes no further; kill() may stop it by way of another one */
        return 0;
    case USWAP_FAIL_FLIP:
        if (data)
            ((unsigned char *)data)[(uint64_t)argument / 8 % bytes] ^= (unsigned char)(1U << ((uint64_t)argument % 8));
        return 0;
    default:
        return 0;
    }
}

int failpoint_hit_data(failpoint_id id, void *data, size_t bytes) {
    return hit(&points[id], data, bytes);
}

int failpoint_hit(failpoint_id id) {
    return hit(&points[id], NULL, 0);
}

int failpoint_hit_page(failpoint_id id, uint64_t page, void *data) {
    failpoint *point = &points[id];
    small_lock_acquire(&point->lock);
    bool others = point->of_page && point->page != page;
    small_lock_release(&point->lock);
    return others ? 0 : hit(point, data, data ? PAGE_BYTES : 0);
}

EXPORT int uswap_failpoints_built(void) {
    return 1;
}

/* page: NULL: whosever step it is. */
static int set(const char *name, uint32_t action, int64_t argument, uint64_t nth, bool every, const uint64_t *page,
               uswap_error *err) {
    int index = find(name, err);
    if (index < 0)
        return index;
    if (action > USWAP_FAIL_FREEZE || argument < 0 || (action != USWAP_FAIL_OFF && nth == 0))
        return error_set(err, USWAP_E_INVALID, 0, "failpoint", NULL,
                         "action must be a uswap_fail_action, argument >= 0 and nth >= 1");
    failpoint *point = &points[index];
    small_lock_acquire(&point->lock);
    bool was = point->action != USWAP_FAIL_OFF, now = action != USWAP_FAIL_OFF;
    point->action = action;
    point->argument = argument;
    point->nth = nth;
    point->every = every;
    point->of_page = page != NULL;
    point->page = page ? *page : 0;
    atomic_store(&point->hits, 0);
    small_lock_release(&point->lock);
    if (now && !was)
        atomic_fetch_add(&failpoints_armed, 1);
    if (was && !now)
        atomic_fetch_sub(&failpoints_armed, 1);
    event_signal(&point->released);
    return 0;
}

EXPORT int uswap_failpoint_set(const char *name, uint32_t action, int64_t argument, uint64_t nth, int every,
                               uswap_error *err) {
    return set(name, action, argument, nth, every != 0, NULL, err);
}

int failpoint_set_page(const char *name, uint32_t action, int64_t argument, uint64_t page, uswap_error *err) {
    return set(name, action, argument, 1, true, &page, err);
}

EXPORT int64_t uswap_failpoint_hits(const char *name, uswap_error *err) {
    int index = find(name, err);
    return index < 0 ? index : (int64_t)atomic_load(&points[index].hits);
}

EXPORT int uswap_syncpoint_wait(const char *name, uint64_t timeout_ns, uswap_error *err) {
    int index = find(name, err);
    if (index < 0)
        return index;
    failpoint *point = &points[index];
    uint64_t deadline = clock_now_ns() + timeout_ns;
    for (;;) {
        uint32_t seen = event_count(&point->arrived);
        if (atomic_load(&point->held) > 0)
            return 1;
        uint64_t now = clock_now_ns();
        if (now >= deadline)
            return 0;
        event_wait(&point->arrived, seen, deadline - now);
    }
}

EXPORT int uswap_syncpoint_release(const char *name, uswap_error *err) {
    int index = find(name, err);
    if (index < 0)
        return index;
    event_signal(&points[index].released);
    return 0;
}

EXPORT void uswap_failpoints_reset(void) {
    for (int i = 0; i < FAILPOINT_COUNT; i++)
        uswap_failpoint_set(names[i], USWAP_FAIL_OFF, 0, 0, 0, NULL);
}

#else

static int not_built(uswap_error *err) {
    return error_set(err, USWAP_E_UNSUPPORTED, 0, "failpoint", NULL,
                     "this build has no failpoints: build with USWAP_FAILPOINTS=1");
}

EXPORT int uswap_failpoints_built(void) {
    return 0;
}

EXPORT int uswap_failpoint_set(const char *name, uint32_t action, int64_t argument, uint64_t nth, int every,
                               uswap_error *err) {
    (void)name, (void)action, (void)argument, (void)nth, (void)every;
    return not_built(err);
}

int failpoint_set_page(const char *name, uint32_t action, int64_t argument, uint64_t page, uswap_error *err) {
    (void)name, (void)action, (void)argument, (void)page;
    return not_built(err);
}

EXPORT int64_t uswap_failpoint_hits(const char *name, uswap_error *err) {
    (void)name;
    return not_built(err);
}

EXPORT int uswap_syncpoint_wait(const char *name, uint64_t timeout_ns, uswap_error *err) {
    (void)name, (void)timeout_ns;
    return not_built(err);
}

EXPORT int uswap_syncpoint_release(const char *name, uswap_error *err) {
    (void)name;
    return not_built(err);
}

EXPORT void uswap_failpoints_reset(void) {}

#endif
