/*
 * run_edges.c - calls at the edges of what `uswap run` manages: run_edges EDGE, for an edge of those at the end. Prints "right", or what is not.
 */
#define _GNU_SOURCE
#include "check.h"

#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE ((size_t)4096)
#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)

static unsigned char *map(size_t bytes) {
    unsigned char *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(p != MAP_FAILED);
    return p;
}

/* A place where nothing is, for a mapping that is the kernel's. */
static unsigned char *fixed(void *address, size_t bytes, int more) {
    return mmap(address, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | more, -1, 0);
}

static int is_all(const unsigned char *p, size_t bytes, int value) {
    for (size_t i = 0; i < bytes; i++)
        if (p[i] != value)
            return 0;
    return 1;
}

/* A line of the kernel's list that has the address; 0: none. */
static int line_of(const void *address, char line[512], uintptr_t *start, uintptr_t *end) {
    FILE *list = fopen("/proc/self/maps", "r");
    int found = 0;
    while (!found && fgets(line, 512, list))
        found = sscanf(line, "%lx-%lx", start, end) == 2 && (uintptr_t)address >= *start && (uintptr_t)address < *end;
    fclose(list);
    return found;
}

static size_t pages_in(unsigned char *p, size_t bytes) {
    unsigned char there;
    size_t in = 0;
    for (size_t i = 0; i < bytes; i += PAGE) {
        CHECK(mincore(p + i, PAGE, &there) == 0);
        in += there & 1;
    }
    return in;
}

/* ---- mappings that grow into those that are managed ---- */

static void small(void) {
    unsigned char *p = map(16 * KIB), *whole;
    memset(p, 7, 16 * KIB);
    unsigned char *q = mremap(p, 16 * KIB, 48 * MIB, MREMAP_MAYMOVE);
    CHECK(q != MAP_FAILED && is_all(q, 16 * KIB, 7) && is_all(q + 16 * KIB, MIB, 0));
    memset(q, 8, 48 * MIB);
    CHECK(is_all(q, 48 * MIB, 8));
    CHECK(pages_in(q, 48 * MIB) < 16 * MIB / PAGE); /* the limit */
    CHECK(munmap(q, 48 * MIB) == 0);
    p = map(8 * KIB); /* what may not be written stays so */
    memset(p, 9, 8 * KIB);
    CHECK(mprotect(p, 8 * KIB, PROT_READ) == 0);
    q = mremap(p, 8 * KIB, 128 * KIB, MREMAP_MAYMOVE);
    CHECK(q != MAP_FAILED && is_all(q, 8 * KIB, 9));
    CHECK(madvise(q, 4 * KIB, MADV_POPULATE_WRITE) != 0);
    p = map(8 * KIB);
    CHECK(mremap(p, 8 * KIB, 128 * KIB, 0) == MAP_FAILED && errno == ENOMEM);
    CHECK((whole = mremap(p, 8 * KIB, 16 * KIB, MREMAP_MAYMOVE)) != MAP_FAILED); /* the kernel's, as before */
    FILE *file = tmpfile();
    CHECK(file && ftruncate(fileno(file), (off_t)MIB) == 0);
    p = mmap(NULL, 8 * KIB, PROT_READ | PROT_WRITE, MAP_SHARED, fileno(file), 0);
    q = mremap(p, 8 * KIB, MIB, MREMAP_MAYMOVE);
    CHECK(q != MAP_FAILED);
    q[MIB - 1] = 5;
    unsigned char last = 0;
    CHECK(pread(fileno(file), &last, 1, (off_t)MIB - 1) == 1 && last == 5);
}

/* ---- across the end of a space ---- */

/* The end of the space that has the address: of the last line without access behind it, which is watched; what follows is not. */
static unsigned char *end_of_space(const unsigned char *address) {
    char line[512];
    uintptr_t start, end, at = (uintptr_t)address;
    while (line_of((void *)at, line, &start, &end) && end - start < (size_t)1 << 32)
        at = end;
    CHECK(end - start >= (size_t)1 << 32);
    return (unsigned char *)end;
}

static void borders(void) {
    unsigned char *p = map(MIB), *end = end_of_space(p), *start = end - 64 * KIB;
    size_t bytes = 64 * KIB + PAGE; /* behind the end there is at least a page that is the runtime's own */
    CHECK(fixed(start, bytes, 0) == start);
    memset(start, 3, bytes);
    CHECK(is_all(start, bytes, 3));
    CHECK(fixed(start, bytes, MAP_FIXED_NOREPLACE) == MAP_FAILED && errno == EEXIST);
    CHECK(is_all(start, bytes, 3));
    CHECK(mprotect(start, bytes, PROT_READ) == 0 && is_all(start, bytes, 3));
    CHECK(mprotect(start, bytes, PROT_READ | PROT_WRITE) == 0);
    memset(start, 4, bytes);
    CHECK(madvise(start, bytes, MADV_DONTNEED) == 0 && is_all(start, bytes, 0));
    FILE *file = tmpfile();
    CHECK(file && ftruncate(fileno(file), (off_t)bytes) == 0);
    CHECK(pwrite(fileno(file), "x", 1, 64 * KIB) == 1);
    CHECK(mmap(start, bytes, PROT_READ, MAP_SHARED | MAP_FIXED, fileno(file), 0) == start);
    CHECK(start[64 * KIB] == 'x' && is_all(start, 64 * KIB, 0));
    CHECK(munmap(start, bytes) == 0);
    unsigned char there;
    CHECK(mincore(start, PAGE, &there) == -1 && errno == ENOMEM);
    CHECK(fixed(start, bytes, MAP_FIXED_NOREPLACE) == start && is_all(start, bytes, 0));
    CHECK(munmap(start, bytes) == 0);
}

/* ---- mincore ---- */

static void core(void) {
    unsigned char *p = map(48 * MIB), there[3];
    memset(p, 1, 48 * MIB);
    p[0] = 2;
    CHECK(mincore(p, PAGE, there) == 0 && (there[0] & 1));
    CHECK(pages_in(p, 48 * MIB) > 0 && pages_in(p, 48 * MIB) < 16 * MIB / PAGE);
    CHECK(mincore(p + 1, PAGE, there) == -1 && errno == EINVAL);
    CHECK(munmap(p + PAGE, PAGE) == 0);
    CHECK(mincore(p, 3 * PAGE, there) == -1 && errno == ENOMEM);
}

/* ---- mlock beyond the limit ---- */

static void lock(void) {
    unsigned char *p = map(48 * MIB);
    CHECK(mlock(p, 48 * MIB) == -1 && errno == ENOMEM);
    CHECK(mlock(p, MIB) == 0);
    memset(p, 6, 48 * MIB);
    CHECK(pages_in(p, MIB) == MIB / PAGE);
    CHECK(is_all(p, 48 * MIB, 6));
    CHECK(munlock(p, MIB) == 0);
    CHECK(mmap(NULL, 48 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED, -1, 0) != MAP_FAILED);
}

/* ---- a thread whose stack is the program's own ---- */

static __thread int mine = 41;

static pthread_barrier_t both;

static void fork_thrice(int value) {
    unsigned char text[4096];
    int status;
    mine += value;
    memset(text, value, sizeof text);
    for (int i = 0; i < 3; i++) {
        pid_t child = fork();
        if (child == 0)
            _exit(mine == 41 + value && is_all(text, sizeof text, value) ? 7 : 8);
        CHECK(child > 0);
        CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 7);
    }
    CHECK(mine == 41 + value && is_all(text, sizeof text, value));
}

static void *fork_there(void *unused) {
    pthread_barrier_wait(&both);
    pthread_barrier_wait(&both);
    fork_thrice(1);
    return unused;
}

static void stack(void) {
    pthread_attr_t attributes;
    pthread_t thread;
    void *memory;
    CHECK(posix_memalign(&memory, PAGE, MIB) == 0);
    pthread_attr_init(&attributes);
    CHECK(pthread_attr_setstack(&attributes, memory, MIB) == 0);
    pthread_barrier_init(&both, NULL, 2);
    CHECK(pthread_create(&thread, &attributes, fork_there, NULL) == 0);
    pthread_barrier_wait(&both);
    fork_thrice(2); /* while that one waits */
    pthread_barrier_wait(&both);
    CHECK(pthread_join(thread, NULL) == 0);
    mine = 41;
    fork_thrice(3); /* and when it has gone */
    memset(memory, 0, MIB);
    free(memory);
}

static void *end_there(void *unused) {
    return unused;
}

/* Its addresses are of something else by now that is not managed: a fork has nothing to hold there. */
static void mapped_over(void) {
    pthread_attr_t attributes;
    pthread_t thread;
    unsigned char *memory = map(MIB);
    pthread_attr_init(&attributes);
    CHECK(pthread_attr_setstack(&attributes, memory, MIB) == 0);
    CHECK(pthread_create(&thread, &attributes, end_there, NULL) == 0 && pthread_join(thread, NULL) == 0);
    int flags = MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED;
    CHECK(mmap(memory + MIB / 2, MIB / 2, PROT_READ | PROT_WRITE, flags, -1, 0) == memory + MIB / 2);
    mine = 41;
    fork_thrice(1);
}

/* What the program has locked of such a stack stays so. */
static void *wait_there(void *unused) {
    pthread_barrier_wait(&both);
    pthread_barrier_wait(&both);
    return unused;
}

static void locked_stack(void) {
    pthread_attr_t attributes;
    pthread_t thread;
    void *memory;
    int status;
    CHECK(posix_memalign(&memory, PAGE, MIB) == 0 && mlock(memory, MIB) == 0);
    pthread_attr_init(&attributes);
    CHECK(pthread_attr_setstack(&attributes, memory, MIB) == 0);
    pthread_barrier_init(&both, NULL, 2);
    CHECK(pthread_create(&thread, &attributes, wait_there, NULL) == 0);
    pthread_barrier_wait(&both);
    pid_t child = fork();
    if (child == 0)
        _exit(0);
    CHECK(child > 0 && waitpid(child, &status, 0) == child && status == 0);
    memset(map(48 * MIB), 1, 48 * MIB);
    CHECK(pages_in(memory, MIB) == MIB / PAGE);
    CHECK(munlock(memory, MIB) == 0);
    pthread_barrier_wait(&both);
    CHECK(pthread_join(thread, NULL) == 0);
    free(memory);
}

/* ---- what is locked stays so when it is elsewhere, or longer ---- */

static void all_stay(unsigned char *p, size_t bytes) {
    unsigned char *other = map(48 * MIB);
    memset(other, 1, 48 * MIB);
    CHECK(pages_in(p, bytes) == bytes / PAGE);
    CHECK(munmap(other, 48 * MIB) == 0);
}

static void remap_locked(void) {
    unsigned char *p = map(16 * KIB), *q;
    memset(p, 7, 16 * KIB);
    CHECK(mlock(p, 16 * KIB) == 0);
    CHECK((p = mremap(p, 16 * KIB, 256 * KIB, MREMAP_MAYMOVE)) != MAP_FAILED); /* from the kernel's */
    all_stay(p, 256 * KIB);
    CHECK((q = mremap(p, 256 * KIB, 512 * KIB, 0)) == p); /* nothing is behind it */
    all_stay(p, 512 * KIB);
    CHECK(fixed(p + 512 * KIB, 64 * KIB, 0) == p + 512 * KIB);
    CHECK((q = mremap(p, 512 * KIB, MIB, MREMAP_MAYMOVE)) != MAP_FAILED && q != p);
    all_stay(q, MIB);
    CHECK(is_all(q, 16 * KIB, 7) && is_all(q + 16 * KIB, MIB - 16 * KIB, 0));
    CHECK(mremap(q, MIB, 32 * MIB, MREMAP_MAYMOVE) == MAP_FAILED); /* more than can be locked */
    all_stay(q, MIB);
    CHECK(munlock(q, MIB) == 0 && munmap(q, MIB) == 0);
    p = map(128 * KIB);
    CHECK(fixed(p, 128 * KIB, MAP_LOCKED) == p);
    all_stay(p, 128 * KIB);
}

/* ---- its number of threads, where files may not grow ---- */

static void stat_without_files(void) {
    static const struct rlimit none;
    char text[1024], *at;
    CHECK(setrlimit(RLIMIT_FSIZE, &none) == 0);
    FILE *stream = fopen("/proc/self/stat", "r");
    CHECK(stream && fgets(text, sizeof text, stream) && fclose(stream) == 0);
    CHECK((at = strrchr(text, ')')));
    for (int field = 2; field < 20; field++)
        CHECK((at = strchr(at + 1, ' ')));
    CHECK(strtol(at, NULL, 10) == 1);
}

/* ---- a core dump ---- */

static void dump(void) {
    static const char text[] = "this is to be found";
    unsigned char *p = map(4 * MIB);
    for (size_t i = 0; i + sizeof text < 4 * MIB; i += sizeof text - 1)
        memcpy(p + i, text, sizeof text - 1);
    abort();
}

/* ---- calls for addresses of which some are not mapped: the kernel says so, and serves the others ---- */

static int can_be_written(const unsigned char *p) {
    char line[512];
    uintptr_t start, end;
    CHECK(line_of(p, line, &start, &end));
    return strstr(line, " rw-p ") != NULL;
}

static void holes(void) {
    unsigned char *p = map(MIB), *last = p + MIB / 2;
    memset(p, 7, MIB);
    CHECK(munmap(p + MIB / 4, MIB / 4) == 0);
    CHECK(madvise(p, MIB, MADV_DONTNEED) == -1 && errno == ENOMEM);
    CHECK(is_all(p, MIB / 4, 0) && is_all(last, MIB / 2, 0));
    CHECK(mprotect(p, MIB, PROT_READ) == -1 && errno == ENOMEM); /* up to the hole */
    CHECK(!can_be_written(p) && !can_be_written(p + MIB / 4 - PAGE) && can_be_written(last));
    CHECK(mprotect(p + MIB / 4, MIB / 2, PROT_READ) == -1 && errno == ENOMEM && can_be_written(last));
}

/* ---- a heap that is made of small mappings ---- */

static size_t anonymous_kib(void) {
    char line[256];
    size_t kib = 0;
    FILE *status = fopen("/proc/self/status", "r");
    while (fgets(line, sizeof line, status))
        sscanf(line, "RssAnon: %zu", &kib);
    fclose(status);
    return kib;
}

static void many_small(void) {
    enum { COUNT = 2000, BYTES = 32 << 10 };
    static unsigned char *all[COUNT];
    for (int i = 0; i < COUNT; i++) {
        all[i] = map(BYTES);
        memset(all[i], i % 255 + 1, BYTES);
    }
    CHECK(anonymous_kib() <
          16 * KIB + 8 * KIB + 16 * KIB); /* the limit, what the kernel has of them, and what is the program's else */
    for (int i = 0; i < COUNT; i++)
        CHECK(is_all(all[i], BYTES, i % 255 + 1) && munmap(all[i], BYTES) == 0);
}

int main(int count, char **words) {
    static const struct {
        const char *name;
        void (*run)(void);
    } all[] = {{"small", small},
               {"borders", borders},
               {"core", core},
               {"lock", lock},
               {"stack", stack},
               {"locked stack", locked_stack},
               {"mapped over", mapped_over},
               {"holes", holes},
               {"abort", dump},
               {"many small", many_small},
               {"remap locked", remap_locked},
               {"stat", stat_without_files}};
    for (size_t i = 0; count == 2 && i < sizeof all / sizeof all[0]; i++)
        if (strcmp(words[1], all[i].name) == 0) {
            all[i].run();
            puts("right");
            return 0;
        }
    return 2;
}
