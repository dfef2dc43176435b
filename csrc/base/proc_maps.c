#define _GNU_SOURCE
#include "base/proc_maps.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

int proc_maps_open(proc_maps *in) {
    in->at = in->length = 0;
    in->fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    return in->fd < 0 ? -errno : 0;
}

void proc_maps_close(proc_maps *in) {
    if (in->fd >= 0)
        close(in->fd);
}

/* Return: the next character; -1 at the end. */
static int next_character(proc_maps *in) {
    if (in->at == in->length) {
        ssize_t got = read(in->fd, in->text, sizeof in->text);
        if (got <= 0)
            return -1;
        in->length = (size_t)got;
        in->at = 0;
    }
    return (unsigned char)in->text[in->at++];
}

/* A number up to the next character that is no digit, which is passed. */
static uintptr_t next_hex(proc_maps *in) {
    uintptr_t value = 0;
    for (;;) {
        int c = next_character(in);
        if (c >= '0' && c <= '9')
            value = value * 16 + (uintptr_t)(c - '0');
        else if (c >= 'a' && c <= 'f')
            value = value * 16 + (uintptr_t)(c - 'a') + 10;
        else
            return value;
    }
}

/* A line of /proc/self/maps: "start-end rwxp ...". */
bool proc_maps_next(proc_maps *in, mapped_range *range) {
    range->start = next_hex(in);
    range->end = next_hex(in);
    range->protection = PROT_NONE;
    range->protection |= next_character(in) == 'r' ? PROT_READ : 0;
    range->protection |= next_character(in) == 'w' ? PROT_WRITE : 0;
    range->protection |= next_character(in) == 'x' ? PROT_EXEC : 0;
    int c;
    while ((c = next_character(in)) != '\n' && c >= 0) {
    }
    return c >= 0;
}
