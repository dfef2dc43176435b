/*
 * run_early.c - fork handlers that a program has registered before anybody else (a constructor), and that look at memory which is out. With OWN_MALLOC: the
 * program brings its own malloc.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define BYTES ((size_t)32 << 20)

extern char **environ;
static unsigned char *memory;
static volatile unsigned long sum;

static void look(void) {
    for (size_t i = 0; memory && i < BYTES; i += 4096)
        sum += memory[i];
}

__attribute__((constructor)) static void early(void) {
    pthread_atfork(look, look, look);
}

#ifdef OWN_MALLOC
static unsigned char *next, *end;

void *malloc(size_t bytes) {
    bytes = (bytes + 31) & ~(size_t)15;
    if (next + bytes > end) {
        size_t room = bytes > (1 << 20) ? bytes : 1 << 20;
        next = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        end = next + room;
    }
    unsigned char *block = next;
    next += bytes;
    *(size_t *)block = bytes - 16;
    return block + 16;
}

void free(void *block) {
    (void)block;
}

void *calloc(size_t count, size_t bytes) {
    return malloc(count * bytes);
}

void *realloc(void *block, size_t bytes) {
    void *moved = malloc(bytes);
    if (block)
        memcpy(moved, block, bytes < ((size_t *)block)[-2] ? bytes : ((size_t *)block)[-2]);
    return moved;
}
#endif

int main(void) {
    memory = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(memory, 3, BYTES);
    pid_t child = fork();
    int status = -1;
    if (child == 0)
        _exit(memory[BYTES - 1]);
    if (child < 0)
        printf("no fork: %s\n", strerrorname_np(errno));
    else if (waitpid(child, &status, 0) == child)
        printf("%d %lu\n", WEXITSTATUS(status), sum / (BYTES / 4096));
    char *words[] = {"true", NULL};
    int error = posix_spawnp(&child, "true", NULL, NULL, words, environ);
    printf("%d %d\n", error, waitpid(child, &status, 0) == child && status == 0);
    return 0;
}
