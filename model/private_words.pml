/*
 * private_words.pml - the steps of page words, slot words and frame counts (page_word.c, swap_cache.c, frame_pool.c), and what must hold when a page
 * is let go.
 *
 * Of the process m. p is a page of its own: a cell. Whether a copy has a cell's newest contents says its bit.
 */

#define move_state(p, from, to, by) assert(page[p].state == from); page[p].state = to; page[p].sealed = 0
#define move_slot(s, from, to, by) assert(slot[s].state == from); slot[s].state = to

#define BIT(p) (1 << (p))
#define has(copy, p) ((copy & BIT(p)) != 0)
#define copy_of(p) (newest[p] -> BIT(p) : 0)

inline charge() {
    assert(used_frames[m] < limit[m]); /* the limit: who asks has looked */
    used_frames[m]++
}

inline uncharge() {
    assert(used_frames[m] > 0);
    used_frames[m]--;
    i = 0;
    do
    :: i < THREADS -> freed[THREAD(m, i)] = 1; i++
    :: else -> i = 0; break
    od
}

/* The word has become (count 0, NONE): the slot goes back to the allocator, unless it is bad (I6), or another process has it (README, Fork). */
inline settle_slot(s) {
    if
    :: slot[s].count == 0 && slot[s].state == NONE ->
        assert(slot[s].taken && slot[s].pins == 0);
        slot[s].wanted = 0; slot[s].stays = 0; slot[s].owner = 0; cached[s] = 0;
        if
#if FORK
        :: inherited(s) -> slot[s].taken = 0; sum[s] = 0; held[disk(s)] = 0; owed = 1 /* holders_release; it is counted by a step of its own */
        :: m == 0 && held[s] -> assert(!slot[s].bad); lending[s] = 1 /* holders_lend */
        :: !inherited(s) && !(m == 0 && held[s]) -> give(s)
#else
        :: give(s)
#endif
        fi
    :: else
    fi
}

inline give(s) {
#if FORK
    assert(m == 1 || !held[s]); /* nobody's */
#endif
    slot[s].taken = slot[s].bad;
    data[disk(s)] = 0; sum[s] = 0
}

inline without_frame(s) { slot[s].wanted = 0; slot[s].stays = 0; cached[s] = 0 }

inline put(s) { /* swap_map_put */
    assert(slot[s].count > 0); /* I5 */
    slot[s].count--;
    if
    :: slot[s].count == 0 && slot[s].state == CLEAN && slot[s].pins == 0 -> move_slot(s, CLEAN, NONE, swap_map_put); without_frame(s); uncharge()
    :: slot[s].count == 0 && slot[s].state == DIRTY && slot[s].pins == 0 -> move_slot(s, DIRTY, NONE, swap_map_put); without_frame(s); uncharge()
    :: else
    fi;
    settle_slot(s)
}

/* A store: all copies are old but the one that is mapped. */
inline age(p) {
    i = 0;
    do
    :: i < WORDS -> cached[i] = cached[i] & ~BIT(p); sum[i] = sum[i] & ~BIT(p); i++
    :: else -> i = 0; break
    od;
    do
    :: i < DISK -> data[i] = data[i] & ~BIT(p); i++
    :: else -> i = 0; break
    od
}

#define SLOT (page[p].entry - 1)
#define no_frame (used_frames[m] >= limit[m])
#if PAGES > 1
#define some_page() if :: p = m * PAGES :: p = m * PAGES + 1 fi
#else
#define some_page() p = m
#endif

/* What holds whenever a page is let go: I3, I4, I5, I7, I14. */
#define is_mapped(p) (entry[p] != ABSENT)
inline unlock(p) {
    assert(page[p].lock);
    assert((page[p].state == RESIDENT) == is_mapped(p)); /* I3 */
    assert(page[p].state != SWAPPED || (page[p].entry > 0 && slot[SLOT].count == 1)); /* I4, I5 */
    assert(page[p].state != SWAPPED || slot[SLOT].state != NONE || has(data[disk(SLOT)], p));
    assert(page[p].state != SWAPPED || slot[SLOT].state == NONE || slot[SLOT].state == READING || has(cached[SLOT], p)); /* I7 */
    assert(!page[p].sealed || (page[p].state == RESIDENT && page[p].entry > 0 && entry[p] == PROTECTED && has(sum[SLOT], p))); /* I14 */
    page[p].lock = 0;
#ifndef MUTANT_MISSED_WAKE
    if
    :: page[p].waiters ->
        i = 0;
        do
        :: i < THREADS -> if :: asleep[THREAD(m, i)] == p + 1 -> asleep[THREAD(m, i)] = 0 :: else fi; i++
        :: else -> i = 0; break
        od
    :: else
    fi;
#endif
    page[p].waiters = 0
}

/* page_in_arrived: the slot is kept, or given up. */
inline arrived(s, keep) {
    move_state(p, SWAPPED, RESIDENT, page_in_arrived);
    if
    :: keep
    :: else -> page[p].entry = 0; put(s)
    fi
}
