/*
 * run_choosing.c - the runtime gets descriptors although a thread of the program's never comes to the end of closing its own: run_choosing range | from | kill.
 *
 * range, from: close_range, closefrom of a connection that does not close before its data has been read; which is when the runtime has had a descriptor.
 * kill: a child of vfork is killed while it looks whether a number is open. The runtime opens a file when this one reads /proc/self/stat by a stream. Prints "right".
 */
#define _GNU_SOURCE
#include "check.h"

#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile int die_looking;

/* In front of libc's, for the runtime, too. */
int fcntl(int fd, int command, ...) {
    static int (*libc)(int, int, ...);
    va_list arguments;
    va_start(arguments, command);
    long argument = va_arg(arguments, long);
    va_end(arguments);
    if (die_looking && command == F_GETFD)
        kill(getpid(), SIGKILL);
    if (!libc) {
        void *found = dlsym(RTLD_NEXT, "fcntl");
        memcpy(&libc, &found, sizeof libc);
    }
    return libc(fd, command, argument);
}

static void *runtime_opens(void *unused) {
    FILE *stream = fopen("/proc/self/stat", "r");
    CHECK(stream && fclose(stream) == 0);
    return unused;
}

/* ---- a connection that is long to close ---- */

static int connection, peer;
static int (*shut)(int fd);

static int by_range(int fd) {
    return close_range((unsigned)fd, (unsigned)fd, 0);
}

static int by_from(int fd) {
    closefrom(fd);
    return 0;
}

/* Full of what nobody reads. */
static void connect_full(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof address;
    struct linger patience = {.l_onoff = 1, .l_linger = 300};
    char text[4096] = "";
    int listening = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(listening >= 0 && bind(listening, (struct sockaddr *)&address, bytes) == 0 && listen(listening, 1) == 0);
    CHECK(getsockname(listening, (struct sockaddr *)&address, &bytes) == 0);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(connect(fd, (struct sockaddr *)&address, bytes) == 0);
    CHECK((peer = accept(listening, NULL, NULL)) >= 0 && close(listening) == 0);
    CHECK((connection = dup2(fd, 100)) == 100 && close(fd) == 0);
    CHECK(setsockopt(connection, SOL_SOCKET, SO_LINGER, &patience, sizeof patience) == 0);
    while (send(connection, text, sizeof text, MSG_DONTWAIT) > 0)
        continue;
    CHECK(errno == EAGAIN);
}

static void *close_it(void *unused) {
    CHECK(shut(connection) == 0);
    return unused;
}

static void slowly(void) {
    pthread_t thread;
    connect_full();
    CHECK(pthread_create(&thread, NULL, close_it, NULL) == 0);
    while (fcntl(connection, F_GETFD) >= 0) /* its number goes first */
        usleep(1000);
    runtime_opens(NULL);
    CHECK(close(peer) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
}

/* ---- a child that dies in between ---- */

static void killed(void) {
    pthread_t thread;
    int status;
    pid_t child = vfork();
    if (child == 0) {
        die_looking = 1;
        close(100);
        _exit(0);
    }
    die_looking = 0;
    CHECK(child > 0 && waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    CHECK(pthread_create(&thread, NULL, runtime_opens, NULL) == 0 && pthread_join(thread, NULL) == 0);
}

int main(int count, char **words) {
    alarm(30); /* if it never comes to an end */
    if (count != 2)
        return 2;
    shut = strcmp(words[1], "range") == 0 ? by_range : by_from;
    (strcmp(words[1], "kill") == 0 ? killed : slowly)();
    puts("right");
    return 0;
}
