/*
 * descriptors.c - the runtime's descriptors are not the program's: close and its like pass them by.
 *
 * Daemons close everything they have inherited, and so does subprocess between fork and exec; a shell opens on number 9 without asking. A descriptor
 * of the runtime that is closed in this way would be the end of all memory. So they lie high, and who closes or overwrites one of them is told
 * that it is not open. Nor do they count against a program that has set itself a low limit: while the runtime opens what it needs in a process, the limit is raised.
 *
 * The kernel gives a new descriptor the lowest number, and only then can it be moved. Whoever closes numbers, or chooses them (dup2), must not meet it there: either
 * would take the other's for his own. So the two exclude each other.
 */
#define _GNU_SOURCE
#include "run/run.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define KEPT_MAX 65536
/* Above what programs use by number, below what select(2) can take, and the kernel's table stays small: it is copied by each fork. */
#define WANTED_LEAST 768

/* Under a limit below this one there is no number that high. It is no more than select(2) can take: another thread may open a file meanwhile. */
#define ROOMY_LIMIT 1024

static _Atomic uint64_t kept[KEPT_MAX / 64];

static rlim_t own_limit; /* the program's; 0: it has not been raised */

/* A bit for each call of the program's that looks at numbers, or chooses one, now; WANTED: a descriptor of the runtime's is to be made, nobody else begins to choose; MOVING: it is
 * on its way up. Who chooses makes no call that could take long, so he is waited for. But he may never come to the end: a child of vfork is killed, a handler leaves by
 * longjmp. After PATIENCE_TURNS (a second and more) he is passed by. A handler that chooses while its thread does waits as long. */
#define MOVING (UINT64_C(1) << 63)
#define WANTED (UINT64_C(1) << 62)
#define ALL_CHOOSING (WANTED - 1)
#define YIELD_TURNS 100U
#define PATIENCE_TURNS (YIELD_TURNS + 10000U)
static _Atomic uint64_t choosing;

/* Others go on. Return: the number of the next turn. */
static unsigned rest(unsigned turn) {
    static const struct timespec moment = {.tv_nsec = 100000};
    int error = errno;
    if (turn < YIELD_TURNS)
        sched_yield();
    else
        nanosleep(&moment, NULL); /* whom it waits for may have less right to the processor */
    errno = error;
    return turn + 1;
}

/* Return: the bit of this call. */
static uint64_t choose_begin(void) {
    uint64_t seen = atomic_load(&choosing);
    for (unsigned turn = 0;;) {
        uint64_t bit = ~seen & (seen + 1);
        if (seen < ALL_CHOOSING && atomic_compare_exchange_weak(&choosing, &seen, seen | bit))
            return bit;
        if (seen == ALL_CHOOSING && turn >= PATIENCE_TURNS)
            atomic_compare_exchange_strong(&choosing, &seen, 0);
        if (seen >= ALL_CHOOSING) {
            turn = rest(turn);
            seen = atomic_load(&choosing);
        }
    }
}

static void choose_end(uint64_t bit) {
    atomic_fetch_and(&choosing, ~bit);
}

void run_descriptors_begin(sigset_t *before) {
    signals_block(before);
    for (unsigned turn = 0;;) {
        uint64_t seen = atomic_fetch_or(&choosing, WANTED) | WANTED;
        bool can = seen == WANTED || (!(seen & MOVING) && turn >= PATIENCE_TURNS);
        if (can && atomic_compare_exchange_strong(&choosing, &seen, MOVING))
            return;
        turn = rest((seen & MOVING) ? MIN_OF(turn, YIELD_TURNS) : turn);
    }
}

void run_descriptors_end(const sigset_t *before) {
    atomic_fetch_and(&choosing, ~MOVING);
    signals_restore(before);
}

/* ---- a fork: in its child no descriptor may be on its way. The last to be prepared, and the first to go on ---- */

static sigset_t fork_mask; /* of the thread that forks */

/* Who moves is waited for: a thread of the runtime's. Who chooses is not: he may be about to touch memory, which nobody brings in now. He goes on in the
 * parent, and is not there in the child. */
static void prepare(void) {
    sigset_t before;
    signals_block(&before);
    uint64_t seen = atomic_load(&choosing);
    unsigned turn = 0;
    while ((seen & MOVING) || !atomic_compare_exchange_weak(&choosing, &seen, seen | MOVING))
        if (seen & MOVING) {
            turn = rest(turn);
            seen = atomic_load(&choosing);
        }
    fork_mask = before;
}

static void in_parent(void) {
    sigset_t after = fork_mask;
    atomic_fetch_and(&choosing, ~MOVING);
    signals_restore(&after);
}

static void in_child(void) {
    sigset_t after = fork_mask;
    atomic_store(&choosing, 0);
    signals_restore(&after);
}

void run_descriptors_at_fork(void) {
    run_core_pthread_atfork(prepare, in_parent, in_child);
}

/* ---- the runtime's ---- */

static bool is_kept(unsigned fd) {
    return fd < KEPT_MAX && (atomic_load_explicit(&kept[fd / 64], memory_order_relaxed) >> fd % 64 & 1);
}

int run_descriptor_least(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return WANTED_LEAST / 2;
    return (int)MIN_OF(limit.rlim_cur / 2, (rlim_t)WANTED_LEAST);
}

void run_descriptors_raise(void) {
    struct rlimit limit;
    own_limit = 0;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= MIN_OF(limit.rlim_max, (rlim_t)ROOMY_LIMIT))
        return;
    rlim_t own = limit.rlim_cur;
    limit.rlim_cur = MIN_OF(limit.rlim_max, (rlim_t)ROOMY_LIMIT);
    if (setrlimit(RLIMIT_NOFILE, &limit) == 0)
        own_limit = own;
}

void run_descriptors_restore(void) {
    struct rlimit limit, found;
    if (own_limit == 0 || getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    rlim_t raised = MIN_OF(limit.rlim_max, (rlim_t)ROOMY_LIMIT);
    limit.rlim_cur = MIN_OF(own_limit, limit.rlim_max);
    if (prlimit(0, RLIMIT_NOFILE, &limit, &found) == 0 && found.rlim_cur != raised)
        setrlimit(RLIMIT_NOFILE, &found); /* another thread has set one meanwhile: that stays */
    own_limit = 0;
}

int run_descriptor_keep(int fd) {
    if (fd < 0)
        return fd;
    int high = fcntl(fd, F_DUPFD_CLOEXEC, run_descriptor_least());
    if (high >= 0)
        syscall(SYS_close, fd);
    else
        high = fd;
    run_descriptor_note(high);
    return high;
}

void run_descriptor_note(int fd) {
    if (fd >= 0 && fd < KEPT_MAX)
        atomic_fetch_or(&kept[fd / 64], UINT64_C(1) << fd % 64);
}

void run_descriptor_forget(int fd) {
    if (fd >= 0 && fd < KEPT_MAX)
        atomic_fetch_and(&kept[fd / 64], ~(UINT64_C(1) << fd % 64));
}

static int not_open(void) {
    errno = EBADF;
    return -1;
}

/* Whose number is in use is the program's, if it is not kept: nobody moves, and what is the program's stays so until it closes it. */
static bool is_open(int fd) {
    int error = errno;
    bool open = fcntl(fd, F_GETFD) >= 0;
    errno = error;
    return open;
}

void run_descriptors_close_all_but(int one, int other) {
    int low = MIN_OF(one, other), high = MAX_OF(one, other);
    if (low > 0)
        syscall(SYS_close_range, 0, low - 1, 0);
    if (high - low > 1)
        syscall(SYS_close_range, low + 1, high - 1, 0);
    syscall(SYS_close_range, high + 1, UINT_MAX, 0);
}

/* ---- what the program calls ---- */

EXPORT int close(int fd) {
    if (fd >= 0 && is_kept((unsigned)fd))
        return not_open();
    uint64_t bit = choose_begin();
    bool open = is_open(fd);
    choose_end(bit);
    return open ? (int)syscall(SYS_close, fd) : not_open();
}

/* What is there before is closed, which may take long. */
static int put_at(int from, int to, int flags) {
    uint64_t bit = choose_begin();
    bool open = is_open(to);
    int result = open ? 0 : (int)syscall(SYS_dup3, from, to, flags);
    choose_end(bit);
    return open ? (int)syscall(SYS_dup3, from, to, flags) : result;
}

EXPORT int dup2(int from, int to) {
    if ((from >= 0 && is_kept((unsigned)from)) || (to >= 0 && is_kept((unsigned)to)))
        return not_open();
    if (from == to)
        return fcntl(from, F_GETFD) < 0 ? -1 : to;
    return put_at(from, to, 0);
}

EXPORT int dup3(int from, int to, int flags) {
    if ((from >= 0 && is_kept((unsigned)from)) || (to >= 0 && is_kept((unsigned)to)))
        return not_open();
    return put_at(from, to, flags);
}

/* How programs find out which are open. */
EXPORT int fstat(int fd, struct stat *status) {
    if (fd >= 0 && is_kept((unsigned)fd))
        return not_open();
    return (int)syscall(SYS_fstat, fd, status);
}

EXPORT int fstat64(int fd, struct stat64 *status) __attribute__((alias("fstat")));

/* Ranges between what is kept. */
static int close_between(unsigned first, unsigned last, int flags) {
    for (unsigned at = first;; at++) {
        while (at <= MIN_OF(last, KEPT_MAX - 1u) && is_kept(at))
            at++;
        if (at > last)
            return 0;
        unsigned end = at;
        while (end < MIN_OF(last, KEPT_MAX - 1u) && !is_kept(end + 1))
            end++;
        if (end >= KEPT_MAX - 1u)
            end = last;
        if (syscall(SYS_close_range, at, end, flags) != 0)
            return -1;
        if (end == last)
            return 0;
        at = end;
    }
}

/* Of some numbers from first on, those that the program has open: a bit each. */
#define LOOKED_AT 64U

static uint64_t open_of(unsigned first, unsigned last) {
    uint64_t found = 0, bit = choose_begin();
    for (unsigned i = 0; i < LOOKED_AT && first + i <= last; i++)
        if (!is_kept(first + i) && is_open((int)(first + i)))
            found |= UINT64_C(1) << i;
    choose_end(bit);
    return found;
}

/* To close may take long. So those that are open are closed one by one, while nobody waits for it; the kernel gives low numbers first, so the search ends where there have been none for a
 * while. Return: where it has. */
#define NONE_FOR 256U

static unsigned close_each(unsigned first, unsigned last) {
    unsigned at = first, open_until = first;
    for (; at <= last && at < KEPT_MAX && at < open_until + NONE_FOR; at += LOOKED_AT)
        for (uint64_t left = open_of(at, last); left != 0; left &= left - 1) {
            syscall(SYS_close, at + (unsigned)__builtin_ctzll(left));
            open_until = at + LOOKED_AT;
        }
    return at;
}

EXPORT int close_range(unsigned first, unsigned last, int flags) {
    if (first > last) {
        errno = EINVAL;
        return -1;
    }
    if (flags == 0)
        first = close_each(first, last);
    if (first > last)
        return 0;
    uint64_t bit = choose_begin();
    int status = close_between(first, last, flags);
    choose_end(bit);
    return status;
}

EXPORT void closefrom(int first) {
    close_range(first < 0 ? 0 : (unsigned)first, UINT_MAX, 0);
}
