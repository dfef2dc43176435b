/*
 * check.h - what programs under `uswap run` check: the first thing that is not so is said, and ends the process with 1.
 */
#ifndef CHECK_H
#define CHECK_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(what)                                                                                                    \
    do {                                                                                                               \
        if (!(what)) {                                                                                                 \
            printf("%d: %s (%s)\n", __LINE__, #what, strerror(errno));                                                 \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

#endif
