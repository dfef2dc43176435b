/*
 * run_hold.c - in front of libc under `uswap run --shared`: the process that keeps the pool stops before anybody can find it. It opens the FIFO $RUN_HOLD_HERE, and
 * goes on when somebody else opens $RUN_HOLD_GO.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

int listen(int fd, int backlog) {
    int (*libc)(int, int);
    void *found = dlsym(RTLD_NEXT, "listen");
    char name[16];
    memcpy(&libc, &found, sizeof libc);
    if (prctl(PR_GET_NAME, name) == 0 && strcmp(name, "uswap-keeper") == 0) {
        close(open(getenv("RUN_HOLD_HERE"), O_WRONLY));
        close(open(getenv("RUN_HOLD_GO"), O_RDONLY));
    }
    return libc(fd, backlog);
}
