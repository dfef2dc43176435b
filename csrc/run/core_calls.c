/*
 * core_calls.c - what the core and jemalloc call where they mean the kernel.
 *
 * In this library mmap, close, malloc and so on are the program's way into managed memory. The runtime must not come by there: the objects of the
 * core and of jemalloc are linked with these names in their place (setup.py). Descriptors that the core opens get high numbers, so that programs which
 * count on low ones, or close all they do not know, do no harm.
 */
#define _GNU_SOURCE
#include "run/run.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifdef USWAP_HAVE_URING
#include <liburing.h>
#endif
#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00) /* Linux 6.1 */
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

_Thread_local int run_inside;

/* In the place of the core's own (region/region_life.c), which there is for programs without us. */
void run_map_directly(int on) {
    run_inside += on ? 1 : -1;
}

/* dlsym(3) gives void pointers, which C does not let be functions. */
void run_look_up(const char *name, void *function) {
    void *found = dlsym(RTLD_NEXT, name);
    memcpy(function, &found, sizeof found);
}

/* ---- memory ---- */

void *run_core_mmap(void *address, size_t bytes, int protection, int flags, int fd, off_t offset) {
    return (void *)syscall(SYS_mmap, address, bytes, protection, flags, fd, offset);
}

int run_core_munmap(void *address, size_t bytes) {
    return (int)syscall(SYS_munmap, address, bytes);
}

int run_core_mprotect(void *address, size_t bytes, int protection) {
    return (int)syscall(SYS_mprotect, address, bytes, protection);
}

int run_core_madvise(void *address, size_t bytes, int advice) {
    return (int)syscall(SYS_madvise, address, bytes, advice);
}

void *run_core_mremap(void *address, size_t bytes, size_t new_bytes, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    void *target = (flags & MREMAP_FIXED) ? va_arg(arguments, void *) : NULL;
    va_end(arguments);
    return (void *)syscall(SYS_mremap, address, bytes, new_bytes, flags, target);
}

int run_core_mlock(const void *address, size_t bytes) {
    return (int)syscall(SYS_mlock, address, bytes);
}

int run_core_munlock(const void *address, size_t bytes) {
    return (int)syscall(SYS_munlock, address, bytes);
}

int run_core_mincore(void *address, size_t bytes, unsigned char *pages) {
    return (int)syscall(SYS_mincore, address, bytes, pages);
}

/* ---- descriptors ---- */

int run_core_close(int fd) {
    run_descriptor_forget(fd);
    return (int)syscall(SYS_close, fd);
}

int run_core_fstat(int fd, struct stat *status) {
    return (int)syscall(SYS_fstat, fd, status);
}

int run_core_open(const char *path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = (flags & (O_CREAT | O_TMPFILE)) ? va_arg(arguments, mode_t) : 0;
    va_end(arguments);
    return KEPT(open(path, flags, mode));
}

int run_core_eventfd(unsigned count, int flags);
int run_core_eventfd(unsigned count, int flags) {
    return KEPT(eventfd(count, flags));
}

int run_core_memfd_create(const char *name, unsigned flags);
int run_core_memfd_create(const char *name, unsigned flags) {
    return KEPT(memfd_create(name, flags));
}

int run_core_socket(int domain, int type, int protocol);
int run_core_socket(int domain, int type, int protocol) {
    return KEPT(socket(domain, type, protocol));
}

int run_core_accept4(int fd, struct sockaddr *address, socklen_t *length, int flags);
int run_core_accept4(int fd, struct sockaddr *address, socklen_t *length, int flags) {
    return KEPT(accept4(fd, address, length, flags));
}

/* What comes with a message. */
ssize_t run_core_recvmsg(int fd, struct msghdr *message, int flags);
ssize_t run_core_recvmsg(int fd, struct msghdr *message, int flags) {
    sigset_t mask;
    run_descriptors_begin(&mask);
    ssize_t bytes = recvmsg(fd, message, flags);
    int error = errno;
    for (struct cmsghdr *part = bytes < 0 ? NULL : CMSG_FIRSTHDR(message); part; part = CMSG_NXTHDR(message, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS)
            continue;
        int *fds = (int *)(void *)CMSG_DATA(part);
        for (size_t i = 0; i < (part->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++)
            fds[i] = run_descriptor_keep(fds[i]);
    }
    run_descriptors_end(&mask);
    errno = error;
    return bytes;
}

int run_core_fcntl(int fd, int command, ...);
int run_core_fcntl(int fd, int command, ...) {
    va_list arguments;
    va_start(arguments, command);
    long argument = va_arg(arguments, long);
    va_end(arguments);
    if (command != F_DUPFD_CLOEXEC)
        return fcntl(fd, command, argument);
    sigset_t mask;
    run_descriptors_begin(&mask);
    int high = fcntl(fd, command, MAX_OF(argument, (long)run_descriptor_least()));
    run_descriptor_note(high);
    run_descriptors_end(&mask);
    return high;
}

int run_core_mkostemp(char *path, int flags);
int run_core_mkostemp(char *path, int flags) {
    return KEPT(mkostemp(path, flags));
}

int run_core_pipe2(int fds[2], int flags);
int run_core_pipe2(int fds[2], int flags) {
    sigset_t mask;
    run_descriptors_begin(&mask);
    int status = pipe2(fds, flags);
    for (int i = 0; status == 0 && i < 2; i++)
        fds[i] = run_descriptor_keep(fds[i]);
    run_descriptors_end(&mask);
    return status;
}

/* Descriptors that the core opens without a function of libc. */
static bool opens_descriptor(long number) {
    return number == SYS_userfaultfd || number == SYS_pidfd_open;
}

long run_core_syscall(long number, ...);
long run_core_syscall(long number, ...) {
    long a[6];
    va_list arguments;
    va_start(arguments, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(arguments, long);
    va_end(arguments);
    return opens_descriptor(number) ? KEPT(syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]))
                                    : syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

/* /dev/userfaultfd gives its descriptor in this way. */
int run_core_ioctl(int fd, unsigned long request, void *argument);
int run_core_ioctl(int fd, unsigned long request, void *argument) {
    return request == USERFAULTFD_IOC_NEW ? KEPT(ioctl(fd, request, argument)) : ioctl(fd, request, argument);
}

#ifdef USWAP_HAVE_URING
int run_core_queue_init(unsigned entries, struct io_uring *ring, unsigned flags);
int run_core_queue_init(unsigned entries, struct io_uring *ring, unsigned flags) {
    sigset_t mask;
    run_descriptors_begin(&mask);
    int status = io_uring_queue_init(entries, ring, flags);
    if (status == 0)
        ring->ring_fd = ring->enter_ring_fd = run_descriptor_keep(ring->ring_fd);
    run_descriptors_end(&mask);
    return status;
}
#endif
