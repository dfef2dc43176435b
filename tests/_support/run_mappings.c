/*
 * run_mappings.c - mmap, munmap, mremap, mprotect, madvise, MAP_FIXED and fork at random, against a model of what must be in each page. Run under
 * `uswap run` and without: what it prints must be the same.
 *
 * Usage: run_mappings SEED STEPS. Prints a line with the checksum of all that was read; exit status 1 and a line on standard error where the model is contradicted.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096
#define WORDS (PAGE / 8)
#define AREAS 12
#define MOST_PAGES 3000
#define FILE_PAGES 64

enum { GONE, ANON, FILED };

typedef struct {
    unsigned char *base;
    int pages;
    int plain; /* as it was mapped: in one piece for the kernel, too */
    uint8_t kind[MOST_PAGES], protection[MOST_PAGES];
    uint64_t value[MOST_PAGES]; /* word i of the page is value + i; 0: all zero */
} area;

static area areas[AREAS];
static uint64_t state, sum;
static int file;
static sigjmp_buf back;

static uint64_t next(void) {
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

static int below(int bound) {
    return (int)(next() % (uint64_t)bound);
}

static void wrong(const char *what, const area *a, int page) {
    fprintf(stderr, "%s: area %d, page %d of %d at %p, kind %d, protection %d: %s\n", what, (int)(a - areas), page,
            a->pages, (void *)(a->base + (size_t)page * PAGE), a->kind[page], a->protection[page], strerror(errno));
    _exit(1);
}

static void on_segv(int number) {
    (void)number;
    siglongjmp(back, 1);
}

static uint64_t *words_of(const area *a, int page) {
    return (uint64_t *)(a->base + (size_t)page * PAGE);
}

static void check_page(const area *a, int page) {
    volatile uint64_t *at = words_of(a, page);
    if (a->kind[page] == GONE || !(a->protection[page] & PROT_READ)) {
        /* Addresses that are not ours any more may be somebody else's by now. */
        if (a->kind[page] == GONE)
            return;
        if (sigsetjmp(back, 1) == 0) {
            (void)*at;
            wrong("a page without access could be read", a, page);
        }
        return;
    }
    for (int i = 0; i < WORDS; i++) {
        uint64_t expected = a->value[page] ? a->value[page] + (uint64_t)i : 0;
        if (at[i] != expected) {
            fprintf(stderr, "word %d: found %llx, expected %llx\n", i, (unsigned long long)at[i],
                    (unsigned long long)expected);
            wrong("wrong contents", a, page);
        }
        sum = sum * 31 + at[i];
    }
}

static void fill_page(area *a, int page) {
    if (a->kind[page] != ANON || a->protection[page] != (PROT_READ | PROT_WRITE))
        return;
    a->value[page] = next() | 1;
    for (int i = 0; i < WORDS; i++)
        words_of(a, page)[i] = a->value[page] + (uint64_t)i;
}

static void set_pages(area *a, int first, int count, int kind, int protection, uint64_t value) {
    for (int page = first; page < first + count; page++) {
        a->kind[page] = (uint8_t)kind;
        a->protection[page] = (uint8_t)protection;
        a->value[page] = value;
    }
}

static int random_protection(void) {
    static const int kinds[] = {PROT_READ | PROT_WRITE, PROT_READ | PROT_WRITE, PROT_READ, PROT_NONE};
    return kinds[below(4)];
}

static void map_area(area *a) {
    int pages = 16 + below(below(4) ? 300 : MOST_PAGES - 16), protection = below(5) ? PROT_READ | PROT_WRITE : PROT_NONE;
    void *base = mmap(NULL, (size_t)pages * PAGE, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    a->pages = pages;
    if (base == MAP_FAILED)
        wrong("mmap", a, 0);
    a->base = base;
    a->plain = protection != PROT_NONE;
    set_pages(a, 0, pages, ANON, protection, 0);
}

static void part(const area *a, int *first, int *count) {
    *first = below(a->pages);
    *count = 1 + below(a->pages - *first);
}

static void unmap_part(area *a) {
    int first, count;
    part(a, &first, &count);
    for (int page = first; page < first + count; page++)
        if (a->kind[page] == GONE)
            return; /* it may be somebody else's */
    if (munmap(a->base + (size_t)first * PAGE, (size_t)count * PAGE) != 0)
        wrong("munmap", a, first);
    a->plain = 0;
    set_pages(a, first, count, GONE, 0, 0);
}

static int is_whole(const area *a, int first, int count, int kind) {
    for (int page = first; page < first + count; page++)
        if (a->kind[page] != kind)
            return 0;
    return 1;
}

static void protect_part(area *a) {
    int first, count, protection = random_protection();
    part(a, &first, &count);
    if (!is_whole(a, first, count, ANON))
        return;
    if (mprotect(a->base + (size_t)first * PAGE, (size_t)count * PAGE, protection) != 0)
        wrong("mprotect", a, first);
    a->plain = 0;
    for (int page = first; page < first + count; page++)
        a->protection[page] = (uint8_t)protection;
}

static void discard_part(area *a) {
    int first, count;
    part(a, &first, &count);
    if (!is_whole(a, first, count, ANON))
        return;
    if (madvise(a->base + (size_t)first * PAGE, (size_t)count * PAGE, MADV_DONTNEED) != 0)
        wrong("madvise", a, first);
    for (int page = first; page < first + count; page++)
        a->value[page] = 0;
}

static void map_over(area *a) {
    int first, count, of_file = below(2);
    part(a, &first, &count);
    for (int page = first; page < first + count; page++)
        if (a->kind[page] == GONE)
            return;
    if (of_file && count > FILE_PAGES)
        count = FILE_PAGES;
    unsigned char *at = a->base + (size_t)first * PAGE;
    void *there = of_file ? mmap(at, (size_t)count * PAGE, PROT_READ, MAP_SHARED | MAP_FIXED, file, 0)
                          : mmap(at, (size_t)count * PAGE, PROT_READ | PROT_WRITE,
                                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    if (there != at)
        wrong("mmap with MAP_FIXED", a, first);
    a->plain = 0;
    set_pages(a, first, count, of_file ? FILED : ANON, of_file ? PROT_READ : PROT_READ | PROT_WRITE, 0);
    for (int page = 0; of_file && page < count; page++)
        a->value[first + page] = 1000000 * (uint64_t)(page + 1);
}

static void remap(area *a) {
    if (!a->plain)
        return;
    int pages = 16 + below(MOST_PAGES - 16);
    void *moved = mremap(a->base, (size_t)a->pages * PAGE, (size_t)pages * PAGE, MREMAP_MAYMOVE);
    if (moved == MAP_FAILED)
        wrong("mremap", a, 0);
    a->base = moved;
    if (pages > a->pages)
        set_pages(a, a->pages, pages - a->pages, ANON, PROT_READ | PROT_WRITE, 0);
    a->pages = pages;
}

static void check_area(const area *a) {
    for (int page = 0; page < a->pages; page++)
        check_page(a, page);
}

static void fork_and_check(void) {
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        for (int i = 0; i < AREAS; i++) {
            check_area(&areas[i]);
            for (int page = 0; page < areas[i].pages; page += 3)
                fill_page(&areas[i], page);
            check_area(&areas[i]);
        }
        _exit(0);
    }
    int status;
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0) {
        fprintf(stderr, "a child ended with status %x\n", child < 0 ? -1 : status);
        _exit(1);
    }
}

static void step(void) {
    area *a = &areas[below(AREAS)];
    int first, count;
    part(a, &first, &count);
    switch (below(12)) {
    case 0:
        for (int page = 0; page < a->pages; page++)
            if (a->kind[page] != GONE && munmap(a->base + (size_t)page * PAGE, PAGE) != 0)
                wrong("munmap of a page", a, page);
        map_area(a);
        break;
    case 1:
        unmap_part(a);
        break;
    case 2:
        protect_part(a);
        break;
    case 3:
        discard_part(a);
        break;
    case 4:
        map_over(a);
        break;
    case 5:
        remap(a);
        break;
    case 6:
        if (below(20) == 0)
            fork_and_check();
        break;
    case 7:
        check_area(a);
        break;
    default:
        for (int page = first; page < first + count; page++)
            fill_page(a, page);
    }
}

int main(int argc, char **argv) {
    if (argc != 3)
        return 2;
    state = strtoull(argv[1], NULL, 10) * 0x9E3779B97F4A7C15u + 1;
    signal(SIGSEGV, on_segv);
    char path[] = "/var/tmp/run_mappings.XXXXXX";
    file = mkstemp(path);
    unlink(path);
    for (int page = 0; page < FILE_PAGES; page++) {
        uint64_t words[WORDS];
        for (int i = 0; i < WORDS; i++)
            words[i] = 1000000 * (uint64_t)(page + 1) + (uint64_t)i;
        if (write(file, words, PAGE) != PAGE)
            return 2;
    }
    for (int i = 0; i < AREAS; i++)
        map_area(&areas[i]);
    for (long steps = strtol(argv[2], NULL, 10); steps > 0; steps--)
        step();
    for (int i = 0; i < AREAS; i++)
        check_area(&areas[i]);
    printf("%llx\n", (unsigned long long)sum);
    return 0;
}
