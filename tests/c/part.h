/*
 * part.h - what the tests of single parts of the core share: checks, dice, threads.
 */
#ifndef PART_H
#define PART_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                            \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

#define THREADS 4

static uint64_t dice_state = UINT64_C(0x9E3779B97F4A7C15);

/* A number below sides; the same ones in each run. Context: one thread. */
static inline uint64_t dice(uint64_t sides) {
    dice_state ^= dice_state << 13;
    dice_state ^= dice_state >> 7;
    dice_state ^= dice_state << 17;
    return (dice_state * UINT64_C(0x2545F4914F6CDD1D) >> 33) % sides;
}

/* Runs it in so many threads at once, each with its number, and waits for all. */
static inline void in_threads(int count, void *(*work)(void *)) {
    pthread_t threads[16];
    for (int i = 0; i < count; i++)
        CHECK(pthread_create(&threads[i], NULL, work, (void *)(intptr_t)i) == 0);
    for (int i = 0; i < count; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
}

#endif
