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
#include <unistd.h>

/* Of proc(5): num_threads, and the one that ends with the last parenthesis. */
enum { NAME = 2, THREADS = 20 };

/* => fd has the text with another number of threads, and is at its beginning. */
static bool rewrite(int fd, char *text, size_t length) {
    char number[24], *at = memrchr(text, ')', length), *rest = NULL;
    for (int field = NAME; at && field < THREADS; field++)
        at = strchr(at + 1, ' ');
    if (at)
        rest = strchr(at + 1, ' ');
    if (!rest)
        return false;
    size_t first = (size_t)(at + 1 - text), last = length - (size_t)(rest - text);
    int digits = snprintf(number, sizeof number, "%ld", run_threads_count());
    return write(fd, text, first) == (ssize_t)first && write(fd, number, (size_t)digits) == digits &&
           write(fd, rest, last) == (ssize_t)last && lseek(fd, 0, SEEK_SET) == 0;
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
    char text[2048];
    if (!run_pool || !path || strcmp(path, "/proc/self/stat") != 0 || mode[0] != 'r' || strchr(mode, '+'))
        return NULL;
    ssize_t length = read_stat(text, sizeof text);
    int fd = length > 0 ? memfd_create("stat", strchr(mode, 'e') ? MFD_CLOEXEC : 0) : -1;
    FILE *stream = fd >= 0 && rewrite(fd, text, (size_t)length) ? fdopen(fd, mode) : NULL;
    if (fd >= 0 && !stream)
        close(fd);
    return stream;
}
