#include "swap/cluster_ahead.h"

/* So many faults from one group within the last CLUSTER_AHEAD_GROUPS groups are no chance, where the slots in use are many. */
#define FAULTS_TOGETHER 4

static slot_group *find(cluster_ahead *ahead, uint64_t number) {
    for (int i = 0; i < CLUSTER_AHEAD_GROUPS; i++)
        if (ahead->group[i].number == number)
            return &ahead->group[i];
    return NULL;
}

static slot_group *replace_oldest(cluster_ahead *ahead, uint64_t number) {
    slot_group *oldest = &ahead->group[0];
    for (int i = 1; i < CLUSTER_AHEAD_GROUPS; i++)
        if (ahead->group[i].used < oldest->used)
            oldest = &ahead->group[i];
    *oldest = (slot_group){.number = number};
    return oldest;
}

/* The group before or after it was read, and so many of its pages were wanted that they came by faults themselves at first. */
static bool follows_one(cluster_ahead *ahead, uint64_t number) {
    const slot_group *before = find(ahead, number - 1), *after = find(ahead, number + 1);
    return (before && before->read) || (after && after->read);
}

bool cluster_ahead_fault(cluster_ahead *ahead, swap_entry entry, bool alone) {
    uint64_t number = entry.value / GROUP_SLOTS + 1;
    small_lock_acquire(&ahead->lock);
    slot_group *group = find(ahead, number);
    bool worth = false;
    if (!group)
        group = replace_oldest(ahead, number);
    bool fresh = group->faults == 0;
    group->used = ++ahead->clock;
    group->faults += alone;
    if (alone && !group->read && (group->faults == FAULTS_TOGETHER || (fresh && follows_one(ahead, number))))
        worth = group->read = true;
    small_lock_release(&ahead->lock);
    return worth;
}
