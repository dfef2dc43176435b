/*
 * nameless_file.h - a file that is gone when its last descriptor is closed, however its processes end.
 */
#ifndef USWAP_BASE_NAMELESS_FILE_H
#define USWAP_BASE_NAMELESS_FILE_H

#include "base/base.h"

/* An empty file on the file system of that directory, for reading and writing, mode 0600. Return: descriptor, or -errno. Context: not on the fault path
 * (stdio, malloc). */
int nameless_file_open(const char *directory);

#endif
