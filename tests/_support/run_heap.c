/*
 * run_heap.c - malloc and its like in several threads, each block filled with a word of its own and checked before it is freed; and forks beside it.
 *
 * Usage: run_heap THREADS STEPS FORKS. Prints how many blocks were right; exit status 1 and a line on standard error for the first that was not.
 */
#define _GNU_SOURCE
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define BLOCKS 1500
#define MOST_THREADS 16

typedef struct {
    uint64_t *words;
    size_t count;
    uint64_t value;
} block;

static block blocks[MOST_THREADS][BLOCKS];
static long steps;

static uint64_t next(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    return *state ^= *state << 17;
}

static void check(const block *b) {
    for (size_t i = 0; i < b->count; i++)
        if (b->words[i] != b->value + i) {
            fprintf(stderr, "a block of %zu words: word %zu is %llx, not %llx\n", b->count, i,
                    (unsigned long long)b->words[i], (unsigned long long)(b->value + i));
            _exit(1);
        }
}

static void fill(block *b, size_t from, uint64_t value) {
    b->value = value;
    for (size_t i = from; i < b->count; i++)
        b->words[i] = value + i;
}

/* Mostly small ones, some of a few MiB. */
static size_t random_count(uint64_t *state) {
    unsigned shift = (unsigned)(next(state) % 18);
    return 1 + next(state) % (UINT64_C(1) << (shift < 16 ? shift : next(state) % 8 ? 12 : 18));
}

static void make(block *b, uint64_t *state) {
    size_t count = random_count(state), alignment = (size_t)64 << next(state) % 8;
    void *words = NULL;
    switch (next(state) % 4) {
    case 0:
        words = calloc(count, 8);
        for (size_t i = 0; words && i < count; i++)
            if (((uint64_t *)words)[i] != 0) {
                fprintf(stderr, "calloc gave a block that is not zero\n");
                _exit(1);
            }
        break;
    case 1:
        if (posix_memalign(&words, alignment, count * 8) != 0 || (uintptr_t)words % alignment != 0)
            words = NULL;
        break;
    default:
        words = malloc(count * 8);
    }
    if (!words || malloc_usable_size(words) < count * 8) {
        fprintf(stderr, "no block of %zu words\n", count);
        _exit(1);
    }
    *b = (block){.words = words, .count = count};
    fill(b, 0, next(state));
}

static void resize(block *b, uint64_t *state) {
    size_t before = b->count;
    b->count = random_count(state);
    b->words = realloc(b->words, b->count * 8);
    check(&(block){.words = b->words, .count = before < b->count ? before : b->count, .value = b->value});
    fill(b, 0, next(state));
}

static void *work(void *argument) {
    block *mine = argument;
    uint64_t state = (uint64_t)(mine - blocks[0]) + 88172645463325252u;
    for (long i = 0; i < steps; i++) {
        block *b = &mine[next(&state) % BLOCKS];
        if (!b->words) {
            make(b, &state);
        } else if (next(&state) % 3 == 0) {
            check(b);
            resize(b, &state);
        } else {
            check(b);
            free(b->words);
            b->words = NULL;
        }
    }
    return NULL;
}

static void fork_once(void) {
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) { /* the other threads are gone in the midst of their blocks: what is here is new */
        char *text = malloc(1 << 20);
        memset(text, 'x', 1 << 20);
        for (int i = 0; i < 200; i++)
            free(malloc((size_t)i * 1000));
        _exit(text[1000] == 'x' ? 0 : 1);
    }
    int status;
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0) {
        fprintf(stderr, "a child ended with status %x\n", child < 0 ? -1 : status);
        _exit(1);
    }
}

int main(int argc, char **argv) {
    if (argc != 4)
        return 2;
    int threads = atoi(argv[1]), forks = atoi(argv[3]);
    steps = atol(argv[2]);
    pthread_t ids[MOST_THREADS];
    for (int i = 0; i < threads; i++)
        pthread_create(&ids[i], NULL, work, blocks[i]);
    for (int i = 0; i < forks; i++)
        fork_once();
    for (int i = 0; i < threads; i++)
        pthread_join(ids[i], NULL);
    long right = 0;
    for (int i = 0; i < threads; i++)
        for (int k = 0; k < BLOCKS; k++)
            if (blocks[i][k].words) {
                check(&blocks[i][k]);
                right++;
            }
    printf("%ld blocks\n", right);
    return 0;
}
