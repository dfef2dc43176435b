/*
 * uffd.h - thin, exact wrappers over userfaultfd(2).
 *
 * Owns: the only knowledge of uffd ioctls in the tree, and of what older kernel headers lack.
 * Does not own: any state. Every function is one or a few system calls; none locks, none allocates.
 *
 * Return: 0 or a count of pages on success, -errno on failure. Batched calls report the prefix that was done through
 * *done_pages, also on failure: "exactly this prefix took effect" (the kernel's .copy/.move/.zeropage field, which is
 * preset to 0 because kernels before April 2025 left it unwritten on EAGAIN).
 */
#ifndef USWAP_FAULT_UFFD_H
#define USWAP_FAULT_UFFD_H

#include <linux/userfaultfd.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif
#ifndef UFFD_FEATURE_EXACT_ADDRESS
#define UFFD_FEATURE_EXACT_ADDRESS (1 << 11)
#endif
#ifndef UFFD_FEATURE_WP_HUGETLBFS_SHMEM
#define UFFD_FEATURE_WP_HUGETLBFS_SHMEM (1 << 12)
#endif
#ifndef UFFD_FEATURE_WP_UNPOPULATED
#define UFFD_FEATURE_WP_UNPOPULATED (1 << 13)
#endif
#ifndef UFFD_FEATURE_POISON
#define UFFD_FEATURE_POISON (1 << 14)
#endif
#ifndef UFFD_FEATURE_WP_ASYNC
#define UFFD_FEATURE_WP_ASYNC (1 << 15)
#endif
#ifndef UFFD_FEATURE_MOVE
#define UFFD_FEATURE_MOVE (1 << 16)
#endif

/* What a new descriptor may serve. */
typedef enum {
    UFFD_ALL_FAULTS, /* system calls too: needs the sysctl, CAP_SYS_PTRACE or /dev/userfaultfd */
    UFFD_USER_ONLY   /* faults of user code only; a system call on a missing page gets EFAULT */
} uffd_scope;

/* Opens by userfaultfd(2), else by /dev/userfaultfd, non-blocking and close-on-exec; no handshake yet.
 * Return: the descriptor, or -errno of the system call (ENOSYS, EPERM, ...). */
int uffd_open(uffd_scope scope);
/* The two ways by themselves, for the doctor. */
int uffd_open_syscall(uffd_scope scope);
int uffd_open_device(uffd_scope scope);

/* UFFDIO_API with exactly these features. Once a descriptor. */
int uffd_handshake(int uffd, uint64_t features);
/* All features this kernel offers, asked on a descriptor of its own. */
int uffd_query_features(uint64_t *features);

typedef enum { UFFD_MISSING = 1, UFFD_WP = 2, UFFD_MINOR = 4 } uffd_mode; /* bits */

int uffd_register(int uffd, void *start, size_t bytes, unsigned modes);
int uffd_unregister(int uffd, void *start, size_t bytes);
int uffd_wake(int uffd, void *start, size_t bytes);

/* Contents from src, mapped write-protected if protect; with wake false the faulting threads sleep on. */
int uffd_copy(int uffd, void *dst, const void *src, size_t pages, bool protect, bool wake, size_t *done_pages);
/* Maps the shared zero page; the first store then takes a frame without a message. */
int uffd_zeropage(int uffd, void *dst, size_t pages, bool wake, size_t *done_pages);
/* Moves frames; dst must be registered with this uffd, src must be private, read-write and unpinned. */
int uffd_move(int uffd, void *dst, const void *src, size_t pages, bool wake, size_t *done_pages);
/* Maps what the page cache of a shared mapping has; write-protected if protect (kernel 6.4). A page that is mapped already (EEXIST) ends it,
 * and wakes nobody. */
int uffd_continue(int uffd, void *start, size_t pages, bool protect, bool wake, size_t *done_pages);
int uffd_write_protect(int uffd, void *start, size_t pages, bool protect, bool wake);
/* A touch of the page raises SIGBUS from now on; a system call gets EFAULT. Kernel 6.6. */
int uffd_poison(int uffd, void *start, size_t pages, bool wake);

#endif
