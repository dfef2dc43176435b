/*
 * descriptors.c - the runtime's descriptors are not the program's: close and its like pass them by.
 *
 * Daemons close everything they have inherited, and so does subprocess between fork and exec; a shell opens on number 9 without asking. A descriptor
 * of the runtime that is closed in this way would be the end of all memory. So they lie high, and who closes or overwrites one of them is told
 * that it is not open.
 */
#define _GNU_SOURCE
#include "run/run.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define KEPT_MAX 65536
/* Above what programs use by number, below what select(2) can take, and the kernel's table stays small: it is copied by each fork. */
#define WANTED_LEAST 768

static _Atomic uint64_t kept[KEPT_MAX / 64];

static bool is_kept(unsigned fd) {
    return fd < KEPT_MAX && (atomic_load_explicit(&kept[fd / 64], memory_order_relaxed) >> fd % 64 & 1);
}

static int least_number(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return WANTED_LEAST / 2;
    return (int)MIN_OF(limit.rlim_cur / 2, (rlim_t)WANTED_LEAST);
}

int run_descriptor_keep(int fd) {
    if (fd < 0)
        return fd;
    int high = fcntl(fd, F_DUPFD_CLOEXEC, least_number());
    if (high >= 0)
        syscall(SYS_close, fd);
    else
        high = fd;
    if (high < KEPT_MAX)
        atomic_fetch_or(&kept[high / 64], UINT64_C(1) << high % 64);
    return high;
}

void run_descriptor_forget(int fd) {
    if (fd >= 0 && fd < KEPT_MAX)
        atomic_fetch_and(&kept[fd / 64], ~(UINT64_C(1) << fd % 64));
}

static int not_open(void) {
    errno = EBADF;
    return -1;
}

/* ---- what the program calls ---- */

EXPORT int close(int fd) {
    if (fd >= 0 && is_kept((unsigned)fd))
        return not_open();
    return (int)syscall(SYS_close, fd);
}

EXPORT int dup2(int from, int to) {
    if ((from >= 0 && is_kept((unsigned)from)) || (to >= 0 && is_kept((unsigned)to)))
        return not_open();
    if (from == to)
        return fcntl(from, F_GETFD) < 0 ? -1 : to;
    return (int)syscall(SYS_dup3, from, to, 0);
}

EXPORT int dup3(int from, int to, int flags) {
    if ((from >= 0 && is_kept((unsigned)from)) || (to >= 0 && is_kept((unsigned)to)))
        return not_open();
    return (int)syscall(SYS_dup3, from, to, flags);
}

/* How programs find out which are open. */
EXPORT int fstat(int fd, struct stat *status) {
    if (fd >= 0 && is_kept((unsigned)fd))
        return not_open();
    return (int)syscall(SYS_fstat, fd, status);
}

EXPORT int fstat64(int fd, struct stat64 *status) __attribute__((alias("fstat")));

/* Ranges between what is kept. */
EXPORT int close_range(unsigned first, unsigned last, int flags) {
    if (first > last) {
        errno = EINVAL;
        return -1;
    }
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

EXPORT void closefrom(int first) {
    close_range(first < 0 ? 0 : (unsigned)first, UINT_MAX, 0);
}
