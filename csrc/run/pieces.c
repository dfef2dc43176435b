#include "run/pieces.h"

#include <errno.h>
#include <sys/mman.h>

uintptr_t run_space_piece(uintptr_t at, uintptr_t end, bool *managed) {
    *managed = false;
    for (int i = 0; i < SPACES; i++) {
        if (at >= spaces[i].base && at < spaces[i].end) {
            *managed = true;
            return MIN_OF(end, spaces[i].end);
        }
        if (spaces[i].base > at)
            end = MIN_OF(end, spaces[i].base);
    }
    return end;
}

/* What one piece is mapped with. */
typedef struct {
    uintptr_t start;
    int protection, flags, fd;
    off_t offset;
} request;

static off_t offset_at(const request *r, void *start) {
    return r->flags & MAP_ANONYMOUS ? 0 : r->offset + (off_t)((uintptr_t)start - r->start);
}

static int map_managed(const request *r, void *start, size_t length) {
    return run_space_map_fixed(start, length, r->protection, r->flags, r->fd, offset_at(r, start)) == start ? 0 : -1;
}

static int map_kernels(const request *r, void *start, size_t length) {
    return run_core_mmap(start, length, r->protection, r->flags, r->fd, offset_at(r, start)) == start ? 0 : -1;
}

/* Without a word to the kernel: the pieces of one kind. *done: where it came to. */
static int map_kind(const request *r, uintptr_t end, bool managed, uintptr_t *done) {
    int status = 0;
    bool ours;
    for (uintptr_t at = r->start, next; status == 0 && at < end; at = next) {
        next = run_space_piece(at, end, &ours);
        if (ours == managed)
            status = managed ? map_managed(r, (void *)at, next - at) : map_kernels(r, (void *)at, next - at);
        if (status == 0)
            *done = next;
    }
    return status;
}

static void unmap_kind(uintptr_t start, uintptr_t end, bool managed) {
    bool ours;
    for (uintptr_t at = start, next; at < end; at = next) {
        next = run_space_piece(at, end, &ours);
        if (ours == managed)
            managed ? run_space_unmap((void *)at, next - at) : run_core_munmap((void *)at, next - at);
    }
}

/* The kernel's pieces first: of those it alone knows whether they are free, if that is asked. */
void *run_map_pieces(void *address, size_t bytes, int protection, int flags, int fd, off_t offset) {
    request r = {(uintptr_t)address, protection, flags, fd, offset};
    uintptr_t end = r.start + whole_pages(bytes), kernels = r.start, managed = r.start;
    if (r.start % PAGE_BYTES != 0 || bytes == 0 || end <= r.start)
        return space_fail_map(r.start % PAGE_BYTES != 0 || bytes == 0 ? EINVAL : ENOMEM);
    if (map_kind(&r, end, false, &kernels) == 0 && map_kind(&r, end, true, &managed) == 0)
        return address;
    int error = errno;
    if ((flags & MAP_FIXED_NOREPLACE) == MAP_FIXED_NOREPLACE) { /* nothing has been there before */
        unmap_kind(r.start, kernels, false);
        unmap_kind(r.start, managed, true);
    }
    return space_fail_map(error);
}
