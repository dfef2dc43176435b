/*
 * pool_lock.c - the file beside the pool's folder: who makes the pool, or cleans up after it, has it locked (README, One limit for all).
 *
 * src/uswap/_rendezvous.py does the same in the same way: its sweep looks at no folder whose file is locked. Whoever removes the file has it locked, so who gets the lock of
 * a file that is not there any more begins anew.
 */
#define _GNU_SOURCE
#include "run/run.h"

#include "base/status.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* The kernel has no flock with a time limit, so it is asked for again. */
static const struct timespec poll_time = {.tv_nsec = 5000000};

static const char *lock_path(void) {
    static char path[sizeof run_set.pool_folder + sizeof ".lock"];
    snprintf(path, sizeof path, "%s.lock", run_set.pool_folder);
    return path;
}

static bool is_there(const char *path) {
    struct stat status;
    return lstat(path, &status) == 0;
}

/* Whether it has not been removed, or another one is there by now. */
static bool is_at(int fd, const char *path) {
    struct stat locked, there;
    return run_core_fstat(fd, &locked) == 0 && lstat(path, &there) == 0 && locked.st_ino == there.st_ino &&
           locked.st_dev == there.st_dev;
}

/* Return: 0 or errno; EWOULDBLOCK: another had it all the time. */
static int lock_until(int fd, uint64_t deadline_ns) {
    while (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            return errno;
        if (clock_now_ns() >= deadline_ns)
            return EWOULDBLOCK;
        nanosleep(&poll_time, NULL);
    }
    return 0;
}

static int failed(uswap_error *err, const char *what, int error) {
    return error_set(err, USWAP_E_OS, error, "lock", lock_path(), "the lock file %s cannot be %s: %s", lock_path(),
                     what, error_text(error));
}

int run_pool_lock(uint64_t wait_ns, uswap_error *err) {
    const char *path = lock_path();
    uint64_t deadline_ns = clock_now_ns() + wait_ns;
    do {
        int fd = run_core_open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (fd < 0)
            return failed(err, "made", errno);
        int error = lock_until(fd, deadline_ns);
        if (error == 0 && is_at(fd, path))
            return fd;
        run_core_close(fd);
        if (error != 0 && error != EWOULDBLOCK)
            return failed(err, "locked", error);
    } while (clock_now_ns() < deadline_ns);
    return error_set(err, USWAP_E_BUSY, 0, "lock", path,
                     "%s is locked: another process has been making this pool for long. Is it stopped?", path);
}

/* Still locked: who has opened the file meanwhile finds, when he gets it, that it is not the one of that name any more. */
static void let_go(int lock) {
    if (!is_there(run_set.pool_folder))
        unlink(lock_path());
    run_core_close(lock);
}

void run_pool_unlock(int lock) {
    let_go(lock);
    run_pool_lock_forget(); /* the folder may have gone after that look, and who removed it found the file locked */
}

void run_pool_lock_forget(void) {
    int lock = is_there(run_set.pool_folder) || !is_there(lock_path()) ? -1 : run_pool_lock(0, NULL);
    if (lock >= 0)
        let_go(lock);
}
