/*
 * remap_small.c - a small mapping, which is the kernel's, grows to a size that is managed: it moves into a space, if it is private and anonymous.
 *
 * The kernel's list of mappings alone says what it is. It is read without libc's streams, which allocate.
 */
#define _GNU_SOURCE
#include "run/pieces.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MADV_COLD
#define MADV_COLD 20 /* Linux 5.4 */
#endif

/* Addresses that 32 bits hold were asked for so (MAP_32BIT). */
#define LOW_END ((uintptr_t)1 << 32)

/* A line of the list: "start-end rwxp offset device inode   name". */
typedef struct {
    uintptr_t start, end;
    char access[4];
    bool nameless;
} mapping;

static const char *read_hexadecimal(const char *at, uintptr_t *number) {
    for (*number = 0;; at++) {
        int digit = *at >= '0' && *at <= '9' ? *at - '0' : *at >= 'a' && *at <= 'f' ? *at - 'a' + 10 : -1;
        if (digit < 0)
            return at;
        *number = *number << 4 | (uintptr_t)digit;
    }
}

static mapping parse(const char *line, const char *end) {
    mapping found = {0};
    const char *at = read_hexadecimal(line, &found.start);
    at = read_hexadecimal(at + 1, &found.end);
    memcpy(found.access, at + 1, sizeof found.access);
    const char *inode = end - 1; /* of a nameless one a space follows the inode */
    while (inode > at && *inode == ' ')
        inode--;
    found.nameless = inode[0] == '0' && inode[-1] == ' ';
    return found;
}

/* The mapping that has the address. Return: false: it cannot be told. */
static bool find(int fd, uintptr_t address, mapping *found) {
    char buffer[8192];
    size_t kept = 0;
    ssize_t got;
    while ((got = read(fd, buffer + kept, sizeof buffer - kept)) > 0) {
        char *line = buffer, *end = buffer + kept + got, *newline;
        for (; (newline = memchr(line, '\n', (size_t)(end - line))); line = newline + 1) {
            *found = parse(line, newline);
            if (address < found->end)
                return address >= found->start;
        }
        kept = (size_t)(end - line);
        memmove(buffer, line, kept);
    }
    return false;
}

static bool look_up(uintptr_t address, mapping *found) {
    int fd = run_core_open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    bool known = fd >= 0 && find(fd, address, found);
    if (fd >= 0)
        run_core_close(fd);
    return known;
}

static bool is_ours(const mapping *m, uintptr_t start, size_t bytes) {
    return m->nameless && m->access[3] == 'p' && m->access[2] != 'x' && start >= LOW_END && m->end - start >= bytes;
}

static int protection_of(const mapping *m) {
    return (m->access[0] == 'r' ? PROT_READ : 0) | (m->access[1] == 'w' ? PROT_WRITE : 0);
}

/* Of a mapping like this, the kernel refuses the advice only if it is locked. */
static bool is_locked(void *address, size_t bytes) {
    return run_core_madvise(address, bytes, MADV_COLD) != 0 && errno == EINVAL;
}

static void *move(const mapping *m, void *address, size_t bytes, size_t new_bytes) {
    void *moved = run_space_map(SPACE_MAPS, new_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, NULL);
    if (moved == MAP_FAILED)
        return MAP_FAILED;
    if (m->access[0] != 'r')
        run_core_mprotect(address, bytes, PROT_READ); /* it is about to go */
    memcpy(moved, address, bytes);
    int wanted = protection_of(m);
    if ((is_locked(address, bytes) && run_space_lock(moved, new_bytes, true) != 0) ||
        (wanted != (PROT_READ | PROT_WRITE) && run_space_protect(moved, new_bytes, wanted) != 0)) {
        run_core_mprotect(address, bytes, wanted);
        run_space_unmap(moved, new_bytes);
        return space_fail_map(ENOMEM);
    }
    run_core_munmap(address, bytes);
    return moved;
}

/* Where the program has not said that it may move, it cannot grow: what was added would not be limited. */
bool run_remap_small(void *address, size_t bytes, size_t new_bytes, int flags, void *target, void **result) {
    mapping found;
    uintptr_t start = (uintptr_t)address;
    bytes = whole_pages(bytes);
    if (!run_pool || run_inside || bytes == 0 || bytes >= RUN_LEAST_BYTES || new_bytes < RUN_LEAST_BYTES ||
        start % PAGE_BYTES != 0 || target || (flags & ~MREMAP_MAYMOVE) || !look_up(start, &found) ||
        !is_ours(&found, start, bytes))
        return false;
    *result = flags & MREMAP_MAYMOVE ? move(&found, address, bytes, new_bytes) : space_fail_map(ENOMEM);
    return true;
}
