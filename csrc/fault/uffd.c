#include "fault/uffd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/ioctl.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define UFFD_PAGE_BYTES 4096UL

/* Absent from the headers of Debian 12 (6.1); the numbers are the kernel's ABI. */
#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif

#ifndef UFFDIO_MOVE
struct uffdio_move {
    __u64 dst;
    __u64 src;
    __u64 len;
    __u64 mode;
    __s64 move;
};
#define UFFDIO_MOVE_MODE_DONTWAKE ((__u64)1 << 0)
#define UFFDIO_MOVE _IOWR(UFFDIO, 0x05, struct uffdio_move)
#endif

#ifndef UFFDIO_POISON
struct uffdio_poison {
    struct uffdio_range range;
    __u64 mode;
    __s64 updated;
};
#define UFFDIO_POISON_MODE_DONTWAKE ((__u64)1 << 0)
#define UFFDIO_POISON _IOWR(UFFDIO, 0x08, struct uffdio_poison)
#endif

#ifndef UFFDIO_CONTINUE_MODE_WP
#define UFFDIO_CONTINUE_MODE_WP ((__u64)1 << 1)
#endif

static int uffd_ioctl(int uffd, unsigned long request, void *argument) {
    return ioctl(uffd, request, argument) == 0 ? 0 : -errno;
}

static size_t prefix_pages(int64_t bytes) {
    return bytes > 0 ? (size_t)bytes / UFFD_PAGE_BYTES : 0;
}

int uffd_open_syscall(uffd_scope scope) {
    int flags = O_CLOEXEC | O_NONBLOCK | (scope == UFFD_USER_ONLY ? UFFD_USER_MODE_ONLY : 0);
    long uffd = syscall(SYS_userfaultfd, flags);
    return uffd >= 0 ? (int)uffd : -errno;
}

int uffd_open_device(uffd_scope scope) {
    int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
    if (device < 0)
        return -errno;
    int flags = O_CLOEXEC | O_NONBLOCK | (scope == UFFD_USER_ONLY ? UFFD_USER_MODE_ONLY : 0);
    int uffd = ioctl(device, USERFAULTFD_IOC_NEW, flags);
    int status = uffd >= 0 ? uffd : -errno;
    close(device);
    return status;
}

int uffd_open(uffd_scope scope) {
    int uffd = uffd_open_syscall(scope);
    if (uffd >= 0)
        return uffd;
    int by_device = uffd_open_device(scope);
    return by_device >= 0 ? by_device : uffd; /* the system call's errno names the cause better */
}

int uffd_handshake(int uffd, uint64_t features) {
    struct uffdio_api api = {.api = UFFD_API, .features = features};
    return uffd_ioctl(uffd, UFFDIO_API, &api);
}

int uffd_query_features(uint64_t *features) {
    int uffd = uffd_open(UFFD_ALL_FAULTS);
    if (uffd < 0)
        uffd = uffd_open(UFFD_USER_ONLY);
    if (uffd < 0)
        return uffd;
    struct uffdio_api api = {.api = UFFD_API, .features = 0};
    int status = uffd_ioctl(uffd, UFFDIO_API, &api);
    close(uffd);
    if (status == 0)
        *features = api.features;
    return status;
}

int uffd_register(int uffd, void *start, size_t bytes, unsigned modes) {
    struct uffdio_register arg = {
        .range = {.start = (uintptr_t)start, .len = bytes},
        .mode = (modes & UFFD_MISSING ? UFFDIO_REGISTER_MODE_MISSING : 0) |
                (modes & UFFD_WP ? UFFDIO_REGISTER_MODE_WP : 0) | (modes & UFFD_MINOR ? UFFDIO_REGISTER_MODE_MINOR : 0),
    };
    return uffd_ioctl(uffd, UFFDIO_REGISTER, &arg);
}

int uffd_unregister(int uffd, void *start, size_t bytes) {
    struct uffdio_range arg = {.start = (uintptr_t)start, .len = bytes};
    return uffd_ioctl(uffd, UFFDIO_UNREGISTER, &arg);
}

int uffd_wake(int uffd, void *start, size_t bytes) {
    struct uffdio_range arg = {.start = (uintptr_t)start, .len = bytes};
    return uffd_ioctl(uffd, UFFDIO_WAKE, &arg);
}

int uffd_copy(int uffd, void *dst, const void *src, size_t pages, bool protect, bool wake, size_t *done_pages) {
    struct uffdio_copy arg = {.dst = (uintptr_t)dst,
                              .src = (uintptr_t)src,
                              .len = pages * UFFD_PAGE_BYTES,
                              .mode = (wake ? 0 : UFFDIO_COPY_MODE_DONTWAKE) | (protect ? UFFDIO_COPY_MODE_WP : 0),
                              .copy = 0};
    int status = uffd_ioctl(uffd, UFFDIO_COPY, &arg);
    *done_pages = status == 0 ? pages : prefix_pages(arg.copy);
    return status;
}

int uffd_zeropage(int uffd, void *dst, size_t pages, bool wake, size_t *done_pages) {
    struct uffdio_zeropage arg = {.range = {.start = (uintptr_t)dst, .len = pages * UFFD_PAGE_BYTES},
                                  .mode = wake ? 0 : UFFDIO_ZEROPAGE_MODE_DONTWAKE,
                                  .zeropage = 0};
    int status = uffd_ioctl(uffd, UFFDIO_ZEROPAGE, &arg);
    *done_pages = status == 0 ? pages : prefix_pages(arg.zeropage);
    return status;
}

int uffd_move(int uffd, void *dst, const void *src, size_t pages, bool wake, size_t *done_pages) {
    struct uffdio_move arg = {.dst = (uintptr_t)dst,
                              .src = (uintptr_t)src,
                              .len = pages * UFFD_PAGE_BYTES,
                              .mode = wake ? 0 : UFFDIO_MOVE_MODE_DONTWAKE,
                              .move = 0};
    int status = uffd_ioctl(uffd, UFFDIO_MOVE, &arg);
    *done_pages = status == 0 ? pages : prefix_pages(arg.move);
    return status;
}

int uffd_continue(int uffd, void *start, size_t pages, bool protect, bool wake, size_t *done_pages) {
    struct uffdio_continue arg = {.range = {.start = (uintptr_t)start, .len = pages * UFFD_PAGE_BYTES},
                                  .mode = (wake ? 0 : UFFDIO_CONTINUE_MODE_DONTWAKE) |
                                          (protect ? UFFDIO_CONTINUE_MODE_WP : 0),
                                  .mapped = 0};
    int status = uffd_ioctl(uffd, UFFDIO_CONTINUE, &arg);
    *done_pages = status == 0 ? pages : prefix_pages(arg.mapped);
    return status;
}

int uffd_write_protect(int uffd, void *start, size_t pages, bool protect, bool wake) {
    struct uffdio_writeprotect arg = {
        .range = {.start = (uintptr_t)start, .len = pages * UFFD_PAGE_BYTES},
        .mode = protect ? UFFDIO_WRITEPROTECT_MODE_WP : (wake ? 0 : UFFDIO_WRITEPROTECT_MODE_DONTWAKE),
    };
    return uffd_ioctl(uffd, UFFDIO_WRITEPROTECT, &arg);
}

int uffd_poison(int uffd, void *start, size_t pages, bool wake) {
    struct uffdio_poison arg = {.range = {.start = (uintptr_t)start, .len = pages * UFFD_PAGE_BYTES},
                                .mode = wake ? 0 : UFFDIO_POISON_MODE_DONTWAKE,
                                .updated = 0};
    return uffd_ioctl(uffd, UFFDIO_POISON, &arg);
}
