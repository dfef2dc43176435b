/*
 * private.pml - the protocol of a private page: csrc/README.md, "Page states", "Swap cache states", "A fault meets", "An eviction". How to run and
 * read it: docs/model.md.
 *
 * States and moves have the names of csrc/README.md; tests/unit/test_model_names.py compares the lists. What is done under a page's lock nobody
 * else sees, but the slot word, which the ends of reads and writes change without it: so each of its moves is a step by itself.
 */
#ifndef PAGES
#define PAGES 1
#endif
#ifndef THREADS
#define THREADS 2 /* each serves its own faults (inline) */
#endif
#ifndef FRAMES
#define FRAMES 1 /* the limit */
#endif
#ifndef SLOTS
#define SLOTS 2
#endif
#ifndef ERRORS
#define ERRORS 0 /* so many, of reads and writes */
#endif
#ifndef DISCARDS
#define DISCARDS 0
#endif

/* README, "Page states"; "Swap cache states" */
mtype = { ZERO, RESIDENT, SWAPPED, POISONED, FILLED };
mtype = { NONE, READING, CLEAN, WRITING, DIRTY };

typedef page_word {
    mtype state = ZERO;
    bit lock;
    bit waiters;
    bit sealed;
    byte entry /* slot + 1; 0: none */
}
typedef slot_word {
    mtype state = NONE;
    byte count;
    byte pins;
    bit wanted;
    bit stays;
    bit bad;
    bit taken; /* in the bitmap of the allocator */
    byte owner /* page + 1 */
}

page_word page[PAGES];
slot_word slot[SLOTS];

/* ---- contents: page + 1: the newest of that page; 0: something else ---- */

#define ABSENT 0
#define PROTECTED 1
#define WRITABLE 2
byte entry[PAGES] = ABSENT;
bit newest[PAGES];     /* what is mapped is the newest */
byte cached[SLOTS];    /* contents of the frame in the swap cache */
byte data[SLOTS];      /* contents of the slot, on the disk */
byte sum[SLOTS];       /* of what the noted hash is */
byte value[PAGES];     /* the newest contents: 0 zeroes, 1 one value throughout, 2 anything */
bit lost[PAGES];
byte used_frames;
byte chances = ERRORS;
byte discards = DISCARDS;
bit calm;
bit freed[THREADS];    /* frames_freed has been signalled since this thread last looked */
byte asleep[THREADS];  /* page + 1, in the parking lot; 0: not */
byte starved;          /* threads that wait for a frame */

#define move_state(p, from, to, by) assert(page[p].state == from); page[p].state = to; page[p].sealed = 0
#define move_slot(s, from, to, by) assert(slot[s].state == from); slot[s].state = to

inline charge() {
    assert(used_frames < FRAMES); /* the limit: who asks has looked */
    used_frames++
}

inline uncharge() {
    assert(used_frames > 0);
    used_frames--;
    i = 0;
    do
    :: i < THREADS -> freed[i] = 1; i++
    :: else -> i = 0; break
    od
}

/* The word has become (count 0, NONE): the slot goes back to the allocator, unless it is bad (I6). */
inline settle_slot(s) {
    if
    :: slot[s].count == 0 && slot[s].state == NONE ->
        assert(slot[s].taken && slot[s].pins == 0);
        slot[s].taken = slot[s].bad; slot[s].wanted = 0; slot[s].stays = 0; slot[s].owner = 0;
        data[s] = 0; sum[s] = 0; cached[s] = 0
    :: else
    fi
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
    :: i < SLOTS ->
        if :: cached[i] == p + 1 -> cached[i] = 0 :: else fi;
        if :: data[i] == p + 1 -> data[i] = 0 :: else fi;
        if :: sum[i] == p + 1 -> sum[i] = 0 :: else fi;
        i++
    :: else -> i = 0; break
    od
}

/* What holds whenever a page is let go: I3, I4, I5, I7, I14. */
#define is_mapped(p) (entry[p] != ABSENT)
inline unlock(p) {
    assert(page[p].lock);
    assert((page[p].state == RESIDENT) == is_mapped(p)); /* I3 */
    assert(page[p].state != SWAPPED || (page[p].entry > 0 && slot[page[p].entry - 1].count == 1)); /* I4, I5 */
    assert(page[p].state != SWAPPED || slot[page[p].entry - 1].state != NONE || data[page[p].entry - 1] == p + 1);
    assert(page[p].state != SWAPPED || slot[page[p].entry - 1].state == NONE || slot[page[p].entry - 1].state == READING ||
           cached[page[p].entry - 1] == p + 1); /* I7 */
    assert(!page[p].sealed || (page[p].state == RESIDENT && page[p].entry > 0 && entry[p] == PROTECTED &&
           sum[page[p].entry - 1] == p + 1)); /* I14 */
    page[p].lock = 0;
#ifndef MUTANT_MISSED_WAKE
    if
    :: page[p].waiters ->
        i = 0;
        do
        :: i < THREADS -> if :: asleep[i] == p + 1 -> asleep[i] = 0 :: else fi; i++
        :: else -> i = 0; break
        od
    :: else
    fi;
#endif
    page[p].waiters = 0
}

#define SLOT (page[p].entry - 1)
#define no_frame (used_frames == FRAMES)
#if PAGES > 1
#define some_page() if :: p = 0 :: p = 1 fi
#else
#define some_page() p = 0
#endif

/* page_in_arrived: the slot is kept, or given up. */
inline arrived(s, keep) {
    move_state(p, SWAPPED, RESIDENT, page_in_arrived);
    if
    :: keep
    :: else -> page[p].entry = 0; put(s)
    fi
}

/* ---- the end of a read: by who has begun it (swap/page_in.c) ---- */

inline complete(s, marker) {
    atomic {
        if
#if ERRORS
        :: chances > 0 -> chances--; goto loses
#endif
        :: true -> assert(data[s] == sum[s]); cached[s] = data[s]
        fi;
        p = slot[s].owner - 1;
        if
        :: slot[s].count == 0 -> /* END_DROP */
            d_step { move_slot(s, READING, NONE, swap_cache_end_read); without_frame(s); uncharge(); settle_slot(s) }; goto again
        :: slot[s].count > 0 && marker && !slot[s].wanted -> /* END_KEEP */
            d_step { move_slot(s, READING, CLEAN, swap_cache_end_read) }; goto again
        :: slot[s].count > 0 && !(marker && !slot[s].wanted) /* END_MAP */
        fi
    };
    atomic { /* run_lock */
        !page[p].lock -> page[p].lock = 1;
        if
#ifdef MUTANT_NO_RECHECK
        :: true ->
#else
        :: page[p].state == SWAPPED && page[p].entry == s + 1 ->
#endif
            if
            :: d_step { entry[p] = WRITABLE; newest[p] = (cached[s] == p + 1); move_slot(s, READING, NONE, swap_cache_take); without_frame(s);
                arrived(s, true) }
            :: d_step { entry[p] = WRITABLE; newest[p] = (cached[s] == p + 1); move_slot(s, READING, NONE, swap_cache_take); without_frame(s);
                arrived(s, false) }
            :: d_step { entry[p] = PROTECTED; newest[p] = (cached[s] == p + 1); move_slot(s, READING, NONE, swap_cache_take); without_frame(s);
                arrived(s, true); page[p].sealed = 1 }
            fi
#ifndef MUTANT_NO_RECHECK
        :: else -> /* discarded while it was read */
            d_step { move_slot(s, READING, NONE, swap_cache_end_read); without_frame(s); uncharge(); settle_slot(s) }
#endif
        fi;
        d_step { unlock(p) };
        goto again
    };
loses:  atomic { /* page_in_poison */
        p = slot[s].owner - 1;
        if :: slot[s].owner == 0 -> p = 0 :: else fi;
        !page[p].lock -> page[p].lock = 1;
        d_step {
            if
            :: page[p].state == SWAPPED && page[p].entry == s + 1 ->
                move_slot(s, READING, NONE, swap_cache_take); without_frame(s); uncharge();
                move_state(p, SWAPPED, POISONED, page_in_poison); page[p].entry = 0; lost[p] = 1; put(s)
            :: else -> move_slot(s, READING, NONE, swap_cache_end_read); without_frame(s); uncharge(); settle_slot(s)
            fi;
            unlock(p)
        };
        goto again
    }
}

/* ---- a thread of the program, which serves its own faults (fault/bring_in.c, fault/fault.c) ---- */

inline serve() { /* page locked; result: 0 done, 1 no frame, 2 READING by others, 3 READING by this one, 4 a copy is to be made */
    s = page[p].entry;
    if :: s > 0 -> s-- :: else fi;
    freed[t] = 0;
    result = 0;
    if
    :: page[p].state == RESIDENT ->
        if :: write -> page[p].sealed = 0; entry[p] = WRITABLE :: else fi
    :: page[p].state == ZERO || page[p].state == FILLED ->
        if
        :: no_frame -> result = 1
        :: else ->
            charge();
            entry[p] = WRITABLE;
            newest[p] = 1;
            if
            :: page[p].state == ZERO -> assert(value[p] == 0); move_state(p, ZERO, RESIDENT, serve_zero)
            :: else -> assert(value[p] == 1); move_state(p, FILLED, RESIDENT, page_in_filled)
            fi
        fi
    :: page[p].state == POISONED -> result = 5
    :: page[p].state == SWAPPED && slot[s].state == NONE ->
        if
        :: no_frame -> result = 1
        :: else -> charge(); move_slot(s, NONE, READING, swap_cache_claim_read); slot[s].wanted = 1; result = 3
        fi
    :: page[p].state == SWAPPED && slot[s].state == READING -> slot[s].wanted = 1; result = 2
    :: page[p].state == SWAPPED && slot[s].state == CLEAN ->
        assert(slot[s].pins == 0); /* I8 */
        newest[p] = (cached[s] == p + 1);
        entry[p] = (keep && seal && !write -> PROTECTED : WRITABLE);
        move_slot(s, CLEAN, NONE, swap_cache_take);
        without_frame(s);
        arrived(s, keep);
        page[p].sealed = (entry[p] == PROTECTED)
    :: page[p].state == SWAPPED && slot[s].state == DIRTY ->
        assert(slot[s].pins == 0);
        newest[p] = (cached[s] == p + 1);
        entry[p] = WRITABLE;
        move_slot(s, DIRTY, NONE, swap_cache_take);
        without_frame(s);
        arrived(s, false)
    :: page[p].state == SWAPPED && slot[s].state == WRITING ->
        if
        :: no_frame -> result = 1
        :: else -> charge(); slot[s].pins++; slot[s].stays = 0; result = 4 /* swap_cache_pin */
        fi
    fi;
    if :: result != 4 -> unlock(p) :: else fi
}

proctype thread(byte t) {
    byte p, s, i, result;
    bit write, keep, seal;
end: do
    :: atomic { !calm -> some_page();
        if
        :: entry[p] != ABSENT -> assert(newest[p]) /* a load: no store lost, nothing stale read */
        :: entry[p] == WRITABLE -> d_step { age(p); newest[p] = 1 }; if :: value[p] = 0 :: value[p] = 1 :: value[p] = 2 fi /* a store */
        :: entry[p] == ABSENT -> write = 0; goto fault
        :: entry[p] != WRITABLE -> write = 1; goto fault
        fi;
        p = 0
    };
    goto end;
fault: atomic { !page[p].lock -> page[p].lock = 1;
        if :: keep = 0 :: keep = 1 fi;
        if :: seal = 0 :: seal = 1 fi;
        d_step { serve(); keep = 0; seal = 0 };
        if
        :: result == 0 || result == 5 -> assert(result == 0 || lost[p]); goto again
        :: result == 1 -> starved++; goto no_frames
        :: result == 2 -> goto waits
        :: result == 3 -> result = 0; goto reads
        :: result == 4
        fi
    };
    atomic { /* serve_copy: the frame is pinned; its write may end at any time */
        newest[p] = (cached[s] == p + 1);
        entry[p] = WRITABLE;
        if
        :: d_step { arrived(s, true) }
        :: d_step { arrived(s, false) }
        fi
    };
    atomic {
        d_step { /* swap_cache_unpin */
            assert(slot[s].pins > 0);
            slot[s].pins--;
            if
            :: slot[s].pins == 0 && slot[s].state == CLEAN ->
                move_slot(s, CLEAN, NONE, swap_cache_unpin); without_frame(s); settle_slot(s);
#ifndef MUTANT_LOST_FRAME
                uncharge()
#endif
            :: slot[s].pins == 0 && slot[s].state == DIRTY && slot[s].count == 0 ->
                move_slot(s, DIRTY, NONE, swap_cache_unpin); without_frame(s); settle_slot(s); uncharge()
            :: else
            fi;
            unlock(p)
        };
        goto again
    };
reads:
    complete(s, false);
waits: atomic { /* await_read: WAITERS first, then the look */
        if
#ifdef MUTANT_SLEEPS_ON_ANY_READ
        :: page[p].state == SWAPPED && slot[SLOT].state == READING -> page[p].waiters = 1; asleep[t] = p + 1
#else
        :: page[p].state == SWAPPED && slot[SLOT].state == READING && slot[SLOT].wanted -> page[p].waiters = 1; asleep[t] = p + 1
#endif
        :: else -> goto fault
        fi
    };
    atomic { asleep[t] == 0 -> goto fault };
no_frames: atomic { freed[t] || !no_frame -> starved--; goto fault };
again: atomic { p = 0; s = 0; result = 0; write = 0 };
    goto end
    od
}

/* ---- read-ahead: the fault thread (swap/page_in.c) ---- */

proctype ahead() {
    byte p, s, i;
    bit marker;
end: do
    :: atomic { !calm && !no_frame -> some_page();
        if
        :: page[p].state == SWAPPED && !page[p].lock && slot[SLOT].state == NONE ->
            d_step { s = SLOT; charge(); move_slot(s, NONE, READING, swap_cache_claim_read) };
            if :: marker = 0 :: marker = 1 fi
        :: else -> p = 0; goto end
        fi
    };
    complete(s, marker);
again: atomic { p = 0; s = 0; marker = 0 }
    od
}

/* ---- evictions and write-ahead: a reclaimer (reclaim/page_out.c, reclaim/inactive.c) ---- */

#define may_reclaim (!calm || starved > 0)

inline take_slot() {
    s = 0;
    do
    :: s < SLOTS && slot[s].taken -> s++
    :: else -> break
    od
}

inline leave() { /* what it kept loses a user */
    kept = page[p].entry;
    page[p].entry = 0;
    if :: kept > 0 -> put(kept - 1) :: else fi;
    kept = 0
}

inline publish() { /* locked, taken out of the region: entry is ABSENT */
    kept = page[p].entry;
    if
    :: value[p] == 0 && newest[p] -> move_state(p, RESIDENT, ZERO, leave_zero); leave(); uncharge()
    :: value[p] == 1 && newest[p] && fills -> move_state(p, RESIDENT, FILLED, leave_filled); leave(); uncharge()
    :: else ->
        if
        :: kept > 0 && !slot[kept - 1].bad && newest[p] && sum[kept - 1] == p + 1 -> /* is_clean */
            move_state(p, RESIDENT, SWAPPED, leave_swapped);
            if
            :: out_ahead && slot[kept - 1].state == NONE ->
                move_slot(kept - 1, NONE, CLEAN, swap_cache_add_clean); slot[kept - 1].stays = 1; cached[kept - 1] = p + 1
            :: else -> uncharge()
            fi
        :: else ->
            take_slot();
            if
            :: s == SLOTS -> entry[p] = WRITABLE /* put_back: no slot */
            :: else ->
                assert(slot[s].state == NONE && slot[s].count == 0); /* I6 */
                slot[s].taken = 1; slot[s].count = 1; slot[s].owner = p + 1; slot[s].stays = out_ahead;
                cached[s] = (newest[p] -> p + 1 : 0);
                sum[s] = cached[s];
                move_slot(s, NONE, WRITING, swap_cache_add_writing);
                move_state(p, RESIDENT, SWAPPED, leave_swapped);
                page[p].entry = s + 1;
#ifndef MUTANT_LOST_USE
                if :: kept > 0 -> put(kept - 1) :: else fi
#endif
            fi
        fi
    fi;
    kept = 0
}

proctype reclaimer() {
    byte p, s, kept, i;
    bit out_ahead, fills;
end: do
    :: atomic { may_reclaim -> some_page();
        if
        :: page[p].state == RESIDENT && !page[p].lock ->
            page[p].lock = 1;
            if :: out_ahead = 0 :: out_ahead = 1 fi;
            if :: fills = 0 :: fills = 1 fi;
            d_step {
                entry[p] = ABSENT; /* transport_out, or drop_mapped: from here on a store waits for the lock */
                if
                :: page[p].sealed -> move_state(p, RESIDENT, SWAPPED, publish); uncharge() /* sealed_drop */
                :: else -> publish()
                fi;
                unlock(p)
            }
        :: page[p].state == SWAPPED && !page[p].lock && slot[SLOT].state == CLEAN && slot[SLOT].pins == 0 -> /* inactive_drop */
            d_step { s = SLOT; move_slot(s, CLEAN, NONE, swap_cache_take); without_frame(s); uncharge(); settle_slot(s) }
        :: else
        fi;
        p = 0; s = 0; out_ahead = 0; fills = 0
    }
    od
}

/* ---- the ends of writes (page_out_complete): one process a slot, so that they come in any order ---- */

proctype writer(byte s) {
    byte p, i;
end: do
    :: atomic { slot[s].state == WRITING ->
        d_step {
            data[s] = cached[s];
            if
            :: slot[s].pins > 0 || (slot[s].stays && slot[s].count > 0) -> move_slot(s, WRITING, CLEAN, swap_cache_end_write)
            :: else -> move_slot(s, WRITING, NONE, swap_cache_end_write); without_frame(s); uncharge(); settle_slot(s)
            fi
        } }
#if ERRORS
    :: atomic { slot[s].state == WRITING && chances > 0 -> /* swap_cache_fail_write */
        chances--;
        p = slot[s].owner - 1;
        slot[s].bad = 1;
        if
        :: slot[s].count == 0 && slot[s].pins == 0 ->
            d_step { move_slot(s, WRITING, NONE, swap_cache_fail_write); without_frame(s); uncharge(); settle_slot(s) };
            p = 0;
            goto end
        :: else -> move_slot(s, WRITING, DIRTY, swap_cache_fail_write)
        fi };
        atomic { /* take_back */
            !page[p].lock ->
            page[p].lock = 1;
            d_step {
                if
                :: page[p].entry == s + 1 && page[p].state == SWAPPED && slot[s].state == DIRTY ->
                    newest[p] = (cached[s] == p + 1); entry[p] = WRITABLE;
                    move_slot(s, DIRTY, NONE, swap_cache_take); without_frame(s);
                    arrived(s, false)
                :: page[p].entry == s + 1 && page[p].state == RESIDENT && slot[s].state == DIRTY && slot[s].pins == 0 ->
                    move_slot(s, DIRTY, NONE, swap_cache_take); without_frame(s);
                    page[p].entry = 0; page[p].sealed = 0; put(s); uncharge()
                :: else
                fi;
                unlock(p);
                p = 0
            }
        }
#endif
    od
}

#if DISCARDS
proctype discard() { /* region_discard: nothing is mapped any more, and the slot is given up */
    byte p, s, i;
end: do
    :: atomic { !calm && discards > 0 -> some_page(); !page[p].lock -> discards--; page[p].lock = 1;
        d_step {
            s = page[p].entry;
            entry[p] = ABSENT;
            value[p] = 0; lost[p] = 0; age(p);
            if
            :: page[p].state == ZERO
            :: page[p].state == RESIDENT -> move_state(p, RESIDENT, ZERO, forget_page); page[p].entry = 0; uncharge()
            :: page[p].state == SWAPPED -> move_state(p, SWAPPED, ZERO, forget_page); page[p].entry = 0
            :: page[p].state == FILLED -> move_state(p, FILLED, ZERO, forget_page)
            :: page[p].state == POISONED -> move_state(p, POISONED, ZERO, forget_page)
            fi;
            if :: s > 0 -> put(s - 1) :: else fi;
            unlock(p);
            p = 0; s = 0
        } }
    od
}
#endif

/* ---- at rest: nobody waits, nothing is leaked ---- */

proctype rest() {
    byte i, uses, frames;
    atomic { timeout ->
        assert(starved == 0);
        do
        :: i < THREADS -> assert(asleep[i] == 0); i++
        :: else -> i = 0; break
        od;
        do
        :: i < PAGES -> assert(!page[i].lock); uses = uses + (page[i].entry > 0); frames = frames + (entry[i] != ABSENT); i++
        :: else -> i = 0; break
        od;
        do
        :: i < SLOTS ->
            assert(slot[i].pins == 0 && (slot[i].state == NONE || slot[i].state == CLEAN));
            assert(slot[i].taken == (slot[i].count > 0 || slot[i].bad));
            uses = uses - slot[i].count; /* I5 */
            frames = frames + (slot[i].state == CLEAN);
            i++
        :: else -> break
        od;
        assert(uses == 0 && frames == used_frames) /* I1 */
    }
}

init {
    byte k;
    atomic {
        do
        :: k < THREADS -> run thread(k); k++
        :: else -> k = 0; break
        od;
        do
        :: k < SLOTS -> run writer(k); k++
        :: else -> k = 0; break
        od;
        run ahead();
        run reclaimer();
#if DISCARDS
        run discard();
#endif
        run rest()
    }
    calm = 1
}
