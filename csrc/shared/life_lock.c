#define _GNU_SOURCE
#include "shared/life_lock.h"

#include "base/failpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

/* By the whole id: what an earlier life in the same place has left open somewhere does not stand in the way of the next. */
static struct flock byte_of(member_id id) {
    return (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = id.value, .l_len = 1};
}

/* The lock is of an open file, not of a descriptor, and all members have the commons by one open file: so it is opened anew. */
int life_lock_take(const commons *c, member_id id) {
    char path[40];
    struct flock byte = byte_of(id);
    int status = FAILPOINT(life_lock);
    if (status != 0)
        return status;
    snprintf(path, sizeof path, "/proc/self/fd/%d", c->fd);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    if (fcntl(fd, F_OFD_SETLK, &byte) == 0)
        return fd;
    status = -errno;
    close(fd);
    return status;
}

bool life_lock_is_held(const commons *c, member_id id) {
    struct flock byte = byte_of(id);
    return fcntl(c->fd, F_OFD_GETLK, &byte) != 0 || byte.l_type != F_UNLCK;
}
