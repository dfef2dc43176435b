/*
 * proc_maps.h - what the kernel says of this process's mappings: /proc/self/maps, without stdio and malloc.
 */
#ifndef USWAP_BASE_PROC_MAPS_H
#define USWAP_BASE_PROC_MAPS_H

#include "base/base.h"

typedef struct {
    int fd;
    size_t at, length;
    char text[4096];
} proc_maps;

typedef struct {
    uintptr_t start, end;
    int protection;
} mapped_range;

/* Return: 0 or -errno; proc_maps_close is right after both. */
int proc_maps_open(proc_maps *in);
void proc_maps_close(proc_maps *in);
/* The next mapping, by address. Return: false at the end. */
bool proc_maps_next(proc_maps *in, mapped_range *range);

#endif
