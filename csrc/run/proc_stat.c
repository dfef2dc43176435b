/*
 * proc_stat.c - /proc/self/stat, as the program reads it by fopen: with as many threads as are its own.
 *
 * CPython from 3.12 on looks there, when it forks, for threads that its child will not have, and warns. The runtime's are no reason to: the child gets its own.
 */
#define _GNU_SOURCE
#include "run/run.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

/* Of proc(5): num_threads, and the one that ends with the last parenthesis. */
enum { NAME = 2, THREADS = 20 };

#define ROOM 2048

/* The text with another number of threads. Return: its length; 0: it is no such text. */
static size_t rewrite(const char *text, size_t length, char told[ROOM + 24]) {
    const char *at = memrchr(text, ')', length), *rest = NULL;
    for (int field = NAME; at && field < THREADS; field++)
        at = strchr(at + 1, ' ');
    if (at)
        rest = strchr(at + 1, ' ');
    if (!rest)
        return 0;
    return (size_t)snprintf(told, ROOM + 24, "%.*s %ld%s", (int)(at - text), text, run_threads_count(), rest);
}

/* What follows: a descriptor, or -1. close_at_exec: as its name says. */
static int in_memory(const char *text, size_t length, bool close_at_exec) {
    int fd = memfd_create("stat", close_at_exec ? MFD_CLOEXEC : 0);
    if (fd < 0 || (write(fd, text, length) == (ssize_t)length && lseek(fd, 0, SEEK_SET) == 0))
        return fd;
    close(fd);
    return -1;
}

/* It has room for all, but cannot be read again from the beginning. */
static int in_pipe(const char *text, size_t length, bool close_at_exec) {
    int ends[2];
    if (pipe2(ends, close_at_exec ? O_CLOEXEC : 0) != 0)
        return -1;
    bool written = write(ends[1], text, length) == (ssize_t)length;
    close(ends[1]);
    if (written)
        return ends[0];
    close(ends[0]);
    return -1;
}

/* A memfd is a file: who writes more to it than files may have gets a signal that ends him. */
static bool may_grow_to(size_t bytes) {
    struct rlimit limit;
    return getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur >= bytes;
}

static ssize_t read_stat(char *text, size_t room) {
    int fd = run_core_open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, text, room - 1);
    if (fd >= 0)
        run_core_close(fd);
    if (length >= 0)
        text[length] = '\0';
    return length;
}

FILE *run_open_stat(const char *path, const char *mode) {
    char text[ROOM], told[ROOM + 24];
    if (!run_pool || !path || strcmp(path, "/proc/self/stat") != 0 || mode[0] != 'r' || strchr(mode, '+'))
        return NULL;
    ssize_t length = read_stat(text, sizeof text);
    size_t bytes = length > 0 ? rewrite(text, (size_t)length, told) : 0;
    int fd = bytes == 0 ? -1 : (may_grow_to(bytes) ? in_memory : in_pipe)(told, bytes, strchr(mode, 'e') != NULL);
    FILE *stream = fd >= 0 ? fdopen(fd, mode) : NULL;
    if (fd >= 0 && !stream)
        close(fd);
    return stream;
}
