/*
 * run_calls.c - calls for memory at their edges: sizes that overflow, ranges that overlap or belong to several mappings, files that are not open. Run under
 * `uswap run` and without: what it prints must be the same.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <malloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define MIB ((size_t)1 << 20)
#define READ_WRITE (PROT_READ | PROT_WRITE)
#define ANYWHERE (MAP_PRIVATE | MAP_ANONYMOUS)

void *__libc_malloc(size_t bytes);
void __libc_free(void *block);

static void say(const char *what, int right) {
    int error = errno;
    printf("%s: %s\n", what, right ? "done" : strerrorname_np(error));
    errno = 0;
}

static unsigned char *filled(size_t bytes, int value) {
    unsigned char *p = mmap(NULL, bytes, READ_WRITE, ANYWHERE, -1, 0);
    memset(p, value, bytes);
    return p;
}

static void moves(void) {
    unsigned char *p = filled(4 * MIB, 7), *q;
    say("onto itself", mremap(p, 2 * MIB, 2 * MIB, MREMAP_MAYMOVE | MREMAP_FIXED, p + MIB) != MAP_FAILED);
    say("fixed, not to move", mremap(p, MIB, MIB, MREMAP_FIXED, p + 2 * MIB) != MAP_FAILED);
    say("to SIZE_MAX", mremap(p, 4 * MIB, SIZE_MAX, MREMAP_MAYMOVE) != MAP_FAILED);
    say("to nothing", mremap(p, 4 * MIB, 0, MREMAP_MAYMOVE) != MAP_FAILED);
    printf("%d %d %d\n", p[0], p[MIB], p[3 * MIB]);
    mprotect(p + MIB, MIB, PROT_READ);
    say("grown over several", mremap(p, 4 * MIB, 8 * MIB, MREMAP_MAYMOVE) != MAP_FAILED);
    say("cut over several", mremap(p, 4 * MIB, MIB, 0) == p);
    mprotect(p, MIB, PROT_NONE);
    q = mmap(p + MIB, 65536, PROT_READ, ANYWHERE | MAP_FIXED, -1, 0); /* so that it must move */
    say("a neighbour", q == p + MIB);
    q = mremap(p, MIB, 2 * MIB, MREMAP_MAYMOVE);
    say("moved without access", q != MAP_FAILED);
    say("access again", mprotect(q, 2 * MIB, READ_WRITE) == 0);
    printf("%d %d %d\n", q[0], q[MIB - 1], q[MIB]);
}

static void mappings(void) {
    unsigned char *p = filled(4 * MIB, 5);
    say("file not open", mmap(p, MIB, PROT_READ, MAP_PRIVATE | MAP_FIXED, 999999, 0) != MAP_FAILED);
    say("MADV_REMOVE", madvise(p, MIB, MADV_REMOVE) == 0);
    printf("%d %d\n", p[0], p[MIB]);
    say("SIZE_MAX", mmap(NULL, SIZE_MAX, READ_WRITE, ANYWHERE, -1, 0) != MAP_FAILED);
    say("SIZE_MAX, fixed", mmap(p, SIZE_MAX, READ_WRITE, ANYWHERE | MAP_FIXED, -1, 0) != MAP_FAILED);
    say("nothing", mmap(NULL, 0, READ_WRITE, ANYWHERE, -1, 0) != MAP_FAILED);
    say("munmap SIZE_MAX", munmap(p, SIZE_MAX) == 0);
    say("munmap nothing", munmap(p, 0) == 0);
    say("munmap within a page", munmap(p + 1, 4096) == 0);
    say("mprotect SIZE_MAX", mprotect(p, SIZE_MAX, PROT_NONE) == 0);
    say("mprotect nothing", mprotect(p, 0, PROT_NONE) == 0);
    printf("%d %d\n", p[0], p[4 * MIB - 1]);
}

static void blocks(void) {
    volatile size_t most = SIZE_MAX, half = (size_t)1 << 33;
    void *block = (void *)5;
    say("malloc SIZE_MAX", malloc(most) != NULL);
    say("malloc beyond PTRDIFF_MAX", malloc(most / 2 + 1) != NULL);
    say("calloc overflows", calloc(half, half) != NULL);
    say("reallocarray overflows", reallocarray(NULL, half, half) != NULL);
    say("pvalloc SIZE_MAX", pvalloc(most) != NULL);
    say("memalign 3", (uintptr_t)memalign(3, 8) % 4 == 0);
    say("memalign 1 << 63", memalign(most / 2 + 1, 8) != NULL);
    printf("%d %d %d\n", posix_memalign(&block, 3, 8), posix_memalign(&block, 4, 8), posix_memalign(&block, 0, 8));
    free(NULL);
    block = realloc(malloc(10), 0);
    printf("%d %d\n", block != NULL, malloc(0) != NULL);
    block = __libc_malloc(1000);
    block = realloc(block, 100000);
    free(block);
    __libc_free(malloc(10));
    errno = 77;
    for (int i = 0; i < 50; i++)
        free(memset(malloc(3 * MIB), 1, 3 * MIB));
    printf("%d\n", errno);
}

int main(void) {
    moves();
    mappings();
    blocks();
    return 0;
}
