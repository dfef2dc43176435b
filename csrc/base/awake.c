#define _GNU_SOURCE
#include "base/awake.h"

#include "base/lock.h"

#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <unistd.h>

#define CREDIT_MAX 16U
#define CREDIT_LEAST 8U
#define LONG_WAIT_COSTS 4U
/* A look around lets other threads go first. If it takes so long, one of them wants this processor: it shall have it. */
#define INTERRUPTED_NS UINT64_C(50000)

static _Atomic uint32_t processors; /* 0: awake_init has not been called */
static _Atomic uint32_t waiting;

static bool read_text(const char *path, char *text, size_t room) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, text, room - 1);
    if (fd >= 0)
        close(fd);
    text[length > 0 ? length : 0] = '\0';
    return length > 0;
}

/* What a container may use, in processors: its time is the program's. Return: LONG_MAX if there is no quota. */
static long quota(void) {
    char text[64];
    long allowed = 0, period = 0;
    if (read_text("/sys/fs/cgroup/cpu.max", text, sizeof text)) {
        sscanf(text, "%ld %ld", &allowed, &period);
    } else if (read_text("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", text, sizeof text)) {
        sscanf(text, "%ld", &allowed);
        if (read_text("/sys/fs/cgroup/cpu/cpu.cfs_period_us", text, sizeof text))
            sscanf(text, "%ld", &period);
    }
    return allowed > 0 && period > 0 ? (allowed + period - 1) / period : LONG_MAX;
}

void awake_init(void) {
    cpu_set_t set;
    long count = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : sysconf(_SC_NPROCESSORS_ONLN);
    count = MIN_OF(count, quota());
    atomic_store(&processors, count > 1 ? (uint32_t)count : 1);
}

bool awake_is_possible(void) {
    return atomic_load_explicit(&processors, memory_order_relaxed) > 1;
}

bool awake_pays(const awake_record *record) {
    return awake_is_possible() && !record->off && record->credit >= CREDIT_LEAST;
}

bool awake_enter(const awake_record *record) {
    uint32_t others = atomic_fetch_add(&waiting, 1);
    return awake_pays(record) && others < atomic_load_explicit(&processors, memory_order_relaxed) / 2;
}

void awake_leave(void) {
    atomic_fetch_sub(&waiting, 1);
}

awake_wait awake_begin(void) {
    uint64_t now = clock_now_ns();
    return (awake_wait){.begin_ns = now, .now_ns = now};
}

bool awake_go_on(awake_record *record, awake_wait *wait) {
    uint64_t last = wait->now_ns;
    sched_yield();
    wait->now_ns = clock_now_ns();
    if (wait->now_ns - last > INTERRUPTED_NS) {
        record->credit -= MIN_OF(record->credit, LONG_WAIT_COSTS);
        return false;
    }
    return wait->now_ns - wait->begin_ns < AWAKE_NS;
}

void awake_note(awake_record *record, uint64_t waited_ns) {
    if (waited_ns < AWAKE_NS)
        record->credit = MIN_OF(record->credit + 1, CREDIT_MAX);
    else
        record->credit -= MIN_OF(record->credit, LONG_WAIT_COSTS);
}
