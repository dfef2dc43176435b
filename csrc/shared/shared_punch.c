/*
 * shared_punch.c - holes in objects' files, and orders for them that others can take back (README, Nobody waits for anybody).
 *
 * FS_IOC_UNRESVSP64 (Linux 5.5, fs/ioctl.c) does what fallocate(2) with FALLOC_FL_PUNCH_HOLE does, but finds its argument in memory, and copies it when the
 * call begins. Ours lies in the commons. So the call of a member that is stopped before it can be made to do nothing, by anybody; what the kernel has begun
 * it ends before the thread can be stopped. An argument whose `whence` is none is refused (EINVAL).
 */
#define _GNU_SOURCE
#include "shared/shared_core.h"

#include "base/failpoint.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define PUNCH_BY_ARGUMENT _IOW('X', 43, punch_argument)
_Static_assert(sizeof(punch_argument) == 48 && offsetof(punch_argument, bytes) == 16, "struct space_resv");

#define PUNCH_ORDERED ((int16_t)SEEK_SET)
#define PUNCH_TAKEN_BACK INT16_C(-1)
/* This kernel, or what filters the program's calls, knows no such call: it is fallocate that punches, and nobody can tell whether it has. */
#define PUNCH_AT_ONCE INT16_C(-2)

void shared_punch(int fd, uint64_t page, uint64_t pages) {
    int ignored = fd >= 0 ? fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(page << PAGE_SHIFT),
                                      (off_t)(pages << PAGE_SHIFT))
                          : 0;
    (void)ignored;
}

void punch_order(group *g, uint32_t object, uint64_t page, uint64_t pages) {
    member_order *own = &group_entry(g, g->self)->order;
    own->argument.start = (int64_t)(page << PAGE_SHIFT);
    atomic_store(&own->object, object);
    atomic_store(&own->first, page);
    atomic_store(&own->count, pages);
    atomic_store(&own->argument.whence, PUNCH_ORDERED); /* before any page is LEAVING */
}

void punch_order_shorten(group *g, uint64_t pages) {
    member_order *own = &group_entry(g, g->self)->order;
    own->argument.bytes = (int64_t)(pages << PAGE_SHIFT);
    atomic_store(&own->count, pages);
}

bool punch_ordered(group *g, int fd) {
    member_order *own = &group_entry(g, g->self)->order;
    int16_t ordered = PUNCH_ORDERED;
    if (FAILPOINT(shared_ordered) == 0 && ioctl(fd, PUNCH_BY_ARGUMENT, &own->argument) == 0)
        return true;
    if (!atomic_compare_exchange_strong(&own->argument.whence, &ordered, PUNCH_AT_ONCE))
        return false;
    shared_punch(fd, atomic_load(&own->first), atomic_load(&own->count));
    atomic_store(&own->argument.whence, PUNCH_TAKEN_BACK); /* it is over: others may say so */
    return true;
}

void punch_order_end(group *g) {
    atomic_store(&group_entry(g, g->self)->order.count, 0);
}

void punch_order_names(group *g, uint64_t slot_plus_1) {
    atomic_store(&group_entry(g, g->self)->order.slot, slot_plus_1);
}

bool punch_take_back(group *g, member_id member) {
    int16_t found = PUNCH_ORDERED;
    return atomic_compare_exchange_strong(&group_entry(g, member)->order.argument.whence, &found, PUNCH_TAKEN_BACK) ||
           found == PUNCH_TAKEN_BACK;
}
