/*
 * run_numbers.c - what a program puts at a number of its choice stays there, and what it has not opened it may close, while the runtime gets descriptors:
 * run_numbers COUNT starts so many programs meanwhile, each of which makes itself known to this process. Prints "right".
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static atomic_int done;

/* Members come, and go. */
static void *start_programs(void *count) {
    char *words[] = {"true", NULL};
    for (long left = (long)count; left > 0; left--) {
        pid_t child;
        int status;
        if (posix_spawnp(&child, "true", NULL, NULL, words, environ) != 0 || waitpid(child, &status, 0) != child ||
            status != 0)
            exit(3);
    }
    atomic_store(&done, 1);
    return NULL;
}

static void wrong(const char *what, int number) {
    printf("%d %s: %s\n", number, what, strerror(errno));
    exit(1);
}

int main(int count, char **words) {
    pthread_t thread;
    struct stat own, found;
    int ends[2];
    if (count != 2 || pipe(ends) != 0 || fstat(ends[0], &own) != 0 ||
        pthread_create(&thread, NULL, start_programs, (void *)atol(words[1])) != 0)
        return 2;
    while (!atomic_load(&done))
        for (int number = ends[1] + 1; number < ends[1] + 8; number++) {
            if (dup2(ends[0], number) != number)
                wrong("cannot be had", number);
            if (fstat(number, &found) != 0 || found.st_ino != own.st_ino)
                wrong("is another's", number);
            if (close(number) != 0)
                wrong("is gone", number);
            if (close(number) == 0)
                wrong("was open though nobody had opened it", number);
        }
    pthread_join(thread, NULL);
    puts("right");
    return 0;
}
