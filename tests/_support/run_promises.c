/*
 * run_promises.c - under `uswap run` with 64 MiB of swap: what is mapped and unmapped leaves as much to be had as there was before, and no more than there is.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#define MIB ((size_t)1 << 20)
#define READ_WRITE (PROT_READ | PROT_WRITE)
#define PLAIN (MAP_PRIVATE | MAP_ANONYMOUS)

static void must(int right, const char *what) {
    if (right)
        return;
    fprintf(stderr, "%s\n", what);
    exit(1);
}

static char *mapped(size_t bytes, int protection, int flags) {
    return mmap(NULL, bytes, protection, flags, -1, 0);
}

static void all_is_there(const char *after) {
    char *p = mapped(40 * MIB, READ_WRITE, PLAIN);
    must(p != MAP_FAILED, after);
    must(mapped(40 * MIB, READ_WRITE, PLAIN) == MAP_FAILED, after);
    must(munmap(p, 40 * MIB) == 0, after);
}

static void *comes_and_goes(void *unused) {
    for (int i = 0; i < 5000; i++) {
        char *p = mapped(4 * MIB, READ_WRITE, PLAIN);
        must(p != MAP_FAILED && munmap(p, 4 * MIB) == 0, "refused beside other threads");
    }
    return unused;
}

static void threads(void) {
    pthread_t all[4];
    for (int i = 0; i < 4; i++)
        must(pthread_create(&all[i], NULL, comes_and_goes, NULL) == 0, "pthread_create");
    for (int i = 0; i < 4; i++)
        pthread_join(all[i], NULL);
}

/* Larger than there is swap: writable without a promise, and parts of it with one. */
static void sparse(void) {
    char *p = mapped(512 * MIB, READ_WRITE, PLAIN | MAP_NORESERVE);
    must(p != MAP_FAILED && mprotect(p + 500 * MIB, 2 * MIB, PROT_NONE) == 0, "sparse");
    must(mprotect(p, 512 * MIB, READ_WRITE) == 0 && munmap(p, 512 * MIB) == 0, "sparse, writable again");
    all_is_there("after a sparse mapping");
    p = mapped(512 * MIB, PROT_NONE, PLAIN | MAP_NORESERVE);
    must(p != MAP_FAILED && mprotect(p, 512 * MIB, READ_WRITE) == 0, "sparse without access, then writable");
    must(munmap(p, 512 * MIB) == 0, "munmap");
    all_is_there("after a sparse mapping without access");
}

/* What has been written to needs its place also when it may not be written to any more. */
static void read_only(void) {
    char *p = mapped(40 * MIB, READ_WRITE, PLAIN);
    must(p != MAP_FAILED && mprotect(p, 40 * MIB, PROT_READ) == 0, "read only");
    must(mapped(40 * MIB, READ_WRITE, PLAIN) == MAP_FAILED, "the place of what is read only was given out twice");
    must(mprotect(p, 40 * MIB, READ_WRITE) == 0 && munmap(p, 40 * MIB) == 0, "writable again");
    all_is_there("after memory that was read only");
}

int main(void) {
    threads();
    all_is_there("after threads");
    sparse();
    read_only();
    puts("right");
    return 0;
}
