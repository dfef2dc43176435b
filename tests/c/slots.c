/*
 * slots.c - the slots of an area against a model: which are taken, and that clusters are given whole as long as there are any.
 */
#include "part.h"

#include "swap/swap_area.h"

#include <string.h>

#define CLUSTERS 8U
#define SLOTS (CLUSTERS * CLUSTER_SLOTS)

static uint64_t bitmap[SLOTS / 64];
static uint16_t cluster_free[CLUSTERS];
static swap_area area;
static bool taken[SLOTS];
static uint64_t usable;

static bool is_whole(uint64_t cluster) {
    for (uint64_t slot = cluster * CLUSTER_SLOTS; slot < (cluster + 1) * CLUSTER_SLOTS; slot++)
        if (slot >= usable || taken[slot])
            return false;
    return true;
}

static uint64_t whole_clusters(void) {
    uint64_t count = 0;
    for (uint64_t cluster = 0; cluster < CLUSTERS; cluster++)
        count += is_whole(cluster);
    return count;
}

static void check(void) {
    uint64_t free_slots = 0, used = 0;
    for (uint64_t slot = 0; slot < usable; slot++) {
        CHECK(slot_alloc_is_taken(&area, slot) == taken[slot]);
        used += taken[slot];
    }
    for (uint64_t cluster = 0; cluster < CLUSTERS; cluster++)
        free_slots += cluster_free[cluster];
    CHECK(free_slots == usable - used);
    CHECK(area.whole_clusters == whole_clusters());
}

static void take(void) {
    uint64_t whole = whole_clusters(), first = 0;
    uint32_t want = (uint32_t)dice(CLUSTER_SLOTS + 10) + 1, count = slot_alloc_run(&area, want, &first);
    CHECK(count <= want && count <= CLUSTER_SLOTS);
    for (uint64_t slot = 0; slot < usable && count == 0; slot++)
        CHECK(taken[slot]);
    if (whole > 0) {
        CHECK(first % CLUSTER_SLOTS == 0 && is_whole(first / CLUSTER_SLOTS));
        CHECK(count == (want < CLUSTER_SLOTS ? want : CLUSTER_SLOTS));
    }
    for (uint64_t slot = first; slot < first + count; slot++) {
        CHECK(slot < usable && !taken[slot]);
        taken[slot] = true;
    }
}

static void give(void) {
    uint64_t first = dice(usable), count = 0;
    while (first + count < usable && taken[first + count] && count < dice(300) + 1)
        taken[first + count++] = false;
    if (count > 0)
        slot_alloc_give(&area, first, (uint32_t)count);
}

static void take_whole(void) {
    uint64_t first, before = whole_clusters(), count = slot_alloc_take_whole(&area, dice(3) + 1, &first);
    CHECK((count == 0) == (before == 0));
    CHECK(area.whole_clusters == before - count);
    for (uint64_t cluster = first; cluster < first + count; cluster++)
        CHECK(is_whole(cluster));
    for (uint64_t cluster = first + count; cluster < CLUSTERS && count > 0; cluster++)
        CHECK(!is_whole(cluster)); /* those nearest to the end */
    slot_alloc_give_whole(&area, first, count);
}

static void extend(void) {
    uint64_t to = usable + dice(SLOTS - usable + 1);
    slot_alloc_extend(&area, usable, to);
    usable = to;
}

int main(void) {
    area = (swap_area){.bitmap = bitmap, .cluster_free = cluster_free, .total_slots = SLOTS};
    slot_alloc_extend(&area, 0, usable = 300);
    for (int turn = 0; turn < 20000; turn++) {
        uint64_t what = dice(100);
        if (what < 30)
            take();
        else if (what < 90)
            give();
        else if (what < 99)
            take_whole();
        else
            extend();
        check();
    }
    CHECK(usable > SLOTS - CLUSTER_SLOTS);
    return 0;
}
