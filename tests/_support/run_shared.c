/*
 * run_shared.c - several processes that write memory until their standard input ends: run_shared WAY MIB...
 *
 * A process for each size, started in that way: "fork", "exec" (a forked child executes this file), "spawn" (posix_spawn), or "become": one process,
 * which executes this file for the next size when its input has a line, and at the last one another program, if there is one: run_shared become MIB MIB PROGRAM.
 * Each prints its pid when it has written all of its memory once. Ends with 1 if anything is not as it was written.
 */
#define _GNU_SOURCE
#include <poll.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

#define PAGE 4096

static void write_all(unsigned char *memory, size_t pages, uint64_t pass) {
    for (size_t i = 0; i < pages; i++)
        for (size_t at = 0; at < PAGE; at += 64)
            *(uint64_t *)(memory + i * PAGE + at) = i * 0x9E3779B97F4A7C15u ^ (at + pass);
}

static int is_right(const unsigned char *memory, size_t pages, uint64_t pass) {
    for (size_t i = 0; i < pages; i++)
        for (size_t at = 0; at < PAGE; at += 64)
            if (*(const uint64_t *)(memory + i * PAGE + at) != (i * 0x9E3779B97F4A7C15u ^ (at + pass)))
                return 0;
    return 1;
}

static int has_input(int patience) {
    struct pollfd input = {.fd = 0, .events = POLLIN};
    return poll(&input, 1, patience) != 0;
}

/* Until there is input, or its end. */
static int work(size_t mib) {
    size_t pages = mib << 8;
    if (pages == 0) {
        dprintf(1, "%d\n", (int)getpid());
        has_input(-1);
        return 0;
    }
    unsigned char *memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return 1;
    for (uint64_t pass = 0;; pass++) {
        write_all(memory, pages, pass);
        if (!is_right(memory, pages, pass))
            return 1;
        if (pass == 0)
            dprintf(1, "%d\n", (int)getpid());
        if (has_input(0))
            return 0;
    }
}

static pid_t start(const char *way, const char *self, const char *mib) {
    char *words[] = {(char *)(uintptr_t)self, "one", (char *)(uintptr_t)mib, NULL};
    pid_t child;
    if (strcmp(way, "spawn") == 0)
        return posix_spawn(&child, self, NULL, NULL, words, environ) == 0 ? child : -1;
    child = fork();
    if (child != 0)
        return child;
    if (strcmp(way, "exec") == 0) {
        execv(self, words);
        _exit(3);
    }
    _exit(work(strtoul(mib, NULL, 10)));
}

static int become(int count, char **words) {
    char line;
    if (work(strtoul(words[2], NULL, 10)) != 0)
        return 1;
    if (count < 4 || read(0, &line, 1) != 1)
        return 0;
    if (words[3][0] == '/')
        execv(words[3], words + 3);
    char *next[] = {words[0], words[1], words[3], count > 4 ? words[4] : NULL, NULL};
    execv(words[0], next);
    return 3;
}

int main(int count, char **words) {
    int status, wrong = 0;
    if (strcmp(words[1], "one") == 0)
        return work(strtoul(words[2], NULL, 10));
    if (strcmp(words[1], "become") == 0)
        return become(count, words);
    for (int i = 3; i < count; i++)
        if (start(words[1], words[0], words[i]) < 0) {
            perror(words[1]);
            return 4;
        }
    wrong = work(strtoul(words[2], NULL, 10));
    while (wait(&status) > 0)
        wrong |= !WIFEXITED(status) || WEXITSTATUS(status) != 0;
    return wrong;
}
