/*
 * run_handlers.c - a signal handler maps memory while the thread that it interrupts does, or forks. Usage: run_handlers SIGNALS. Prints "right".
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define BYTES ((size_t)128 << 10)

static volatile sig_atomic_t handled, failed;

static char *maps(int step) {
    char *p = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED || mprotect(p, BYTES / 2, step % 2 ? PROT_READ : PROT_NONE) != 0)
        return NULL;
    p[BYTES - 1] = 1;
    return p;
}

static void on_signal(int number) {
    int error = errno;
    char *p = maps(number);
    failed |= !p || munmap(p, BYTES) != 0;
    handled++;
    errno = error;
}

static int forks(void) {
    int status;
    pid_t child = fork();
    if (child == 0)
        _exit(maps(0) ? 0 : 1);
    return waitpid(child, &status, 0) == child && status == 0;
}

int main(int count, char **words) {
    struct itimerval often = {{0, 300}, {0, 300}};
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    int wanted = count > 1 ? atoi(words[1]) : 100;
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &often, NULL);
    for (int step = 0; handled < wanted && !failed; step++) {
        char *p = maps(step);
        failed |= !p || munmap(p, BYTES) != 0 || (step % 500 == 0 && !forks());
    }
    puts(failed ? "wrong" : "right");
    return 0;
}
