#define _GNU_SOURCE
#include "shared/life_lock.h"

#include "base/failpoint.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

/* By the whole id: what an earlier life in the same place has left somewhere does not stand in the way of the next. */
static struct flock byte_of(member_id id) {
    return (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = id.value, .l_len = 1};
}

/* The mapping keeps the file open, with its lock; nobody can close that by number. */
static void *keep_open(int fd) {
    void *kept = mmap(NULL, PAGE_BYTES, PROT_NONE, MAP_SHARED, fd, 0);
    if (kept == MAP_FAILED)
        return NULL;
    if (madvise(kept, PAGE_BYTES, MADV_DONTFORK) == 0)
        return kept;
    munmap(kept, PAGE_BYTES);
    return NULL;
}

/* The lock is of an open file, not of a descriptor, and all members have the commons by one open file: so it is opened anew. */
void *life_lock_take(const commons *c, member_id id) {
    char path[40];
    struct flock byte = byte_of(id);
    if (FAILPOINT(life_lock) != 0)
        return NULL;
    snprintf(path, sizeof path, "/proc/self/fd/%d", c->fd);
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return NULL;
    void *lock = commons_is(c, fd) && fcntl(fd, F_OFD_SETLK, &byte) == 0 ? keep_open(fd) : NULL;
    close(fd);
    return lock;
}

void life_lock_let_go(void *lock) {
    if (lock)
        munmap(lock, PAGE_BYTES);
}

/* The number may be another file's, if the program has closed descriptors that it does not know: looked at last, of a file that was asked. */
bool life_lock_is_held(const commons *c, member_id id) {
    struct flock byte = byte_of(id);
    return fcntl(c->fd, F_OFD_GETLK, &byte) != 0 || byte.l_type != F_UNLCK || !commons_is(c, c->fd);
}
