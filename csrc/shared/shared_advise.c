#define _GNU_SOURCE
#include "shared/shared_advise.h"

#include "base/memory.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define VERIFY_PAGES 64U
#define VERIFY_TRIES 5

/* ---- verify ---- */

/* Pages from the first on that are out, with neighbouring slots. */
static size_t run_out(shared_region *r, size_t page, size_t pages, uint64_t *slot) {
    size_t run = 0;
    for (; run < MIN_OF(pages, (size_t)VERIFY_PAGES); run++) {
        uint64_t word = shared_load(&r->words[page + run]);
        if (shared_state_of(word) != SHARED_SWAPPED || (run > 0 && shared_field_of(word) != *slot + run))
            break;
        if (run == 0)
            *slot = shared_field_of(word);
    }
    return run;
}

/* Return: 0; or an errno, as lost_because has it. */
static int read_slot(group *g, uint64_t slot, unsigned char *memory) {
    uint8_t found[16];
    ssize_t done = pread(g->swap_fd, memory, PAGE_BYTES, (off_t)(slot << PAGE_SHIFT));
    if (done != (ssize_t)PAGE_BYTES)
        return done < 0 ? errno : EIO;
    shared_hash(g, memory, found);
    return memcmp(found, commons_slots(&g->commons)[slot].hash, sizeof found) == 0 ? 0 : EBADMSG;
}

/* The page may come and go meanwhile: only what is out in that slot before and after is judged by it. Return: as read_slot. */
static int look_at(group *g, shared_region *r, size_t page, unsigned char *memory) {
    int found = 0;
    for (int tries = 0; tries < VERIFY_TRIES; tries++) {
        uint64_t word = shared_load(&r->words[page]);
        if (shared_state_of(word) == SHARED_POISONED)
            return (int)shared_field_of(word);
        found = shared_state_of(word) == SHARED_SWAPPED ? read_slot(g, shared_field_of(word), memory) : 0;
        if (found == 0)
            return 0;
    }
    return found;
}

static bool run_is_right(group *g, uint64_t slot, size_t run, unsigned char *memory) {
    size_t bytes = run << PAGE_SHIFT;
    uint8_t found[16];
    if (pread(g->swap_fd, memory, bytes, (off_t)(slot << PAGE_SHIFT)) != (ssize_t)bytes)
        return false;
    for (size_t i = 0; i < run; i++) {
        shared_hash(g, memory + (i << PAGE_SHIFT), found);
        if (memcmp(found, commons_slots(&g->commons)[slot + i].hash, sizeof found) != 0)
            return false;
    }
    return true;
}

int shared_verify(group *g, shared_region *r, size_t page, size_t pages, size_t *bad, int *why) {
    size_t bytes = (size_t)VERIFY_PAGES << PAGE_SHIFT;
    unsigned char *memory = memory_map(bytes);
    if (!memory)
        return -ENOMEM;
    int status = 0;
    for (size_t end = page + pages; page < end && status == 0;) {
        uint64_t slot = 0;
        size_t run = MAX_OF(run_out(r, page, end - page, &slot), (size_t)1);
        bool right = slot > 0 && run_is_right(g, slot, run, memory);
        for (size_t i = 0; i < run && !right && status == 0; i++)
            if ((*why = look_at(g, r, page + i, memory)) != 0) {
                *bad = page + i;
                status = -EIO;
            }
        page += run;
    }
    memory_unmap(memory, bytes);
    return status;
}
