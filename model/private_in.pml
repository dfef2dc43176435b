/* private_in.pml - faults, reads and read-ahead (fault/fault.c, fault/bring_in.c, swap/page_in.c). */

/* ---- the end of a read: by who has begun it (swap/page_in.c) ---- */

inline complete(s, marker, served) {
    atomic {
        if
#if ERRORS
        :: chances > 0 -> chances--; goto loses
#endif
        :: true
        fi;
        p = slot[s].owner - 1;
        assert(has(data[disk(s)], p) == has(sum[s], p));
        cached[s] = data[disk(s)];
        if
        :: slot[s].count == 0 -> /* END_DROP */
            d_step { move_slot(s, READING, NONE, swap_cache_end_read); without_frame(s); uncharge(); settle_slot(s) }; inside[m] = inside[m] - served; goto again
        :: slot[s].count > 0 && marker && !slot[s].wanted -> /* END_KEEP */
            d_step { move_slot(s, READING, CLEAN, swap_cache_end_read) }; inside[m] = inside[m] - served; goto again /* unreached: by a thread, which wants what it reads */
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
            :: d_step { entry[p] = WRITABLE; newest[p] = has(cached[s], p); move_slot(s, READING, NONE, swap_cache_take); without_frame(s);
                arrived(s, true) }
            :: d_step { entry[p] = WRITABLE; newest[p] = has(cached[s], p); move_slot(s, READING, NONE, swap_cache_take); without_frame(s);
                arrived(s, false) }
            :: d_step { entry[p] = PROTECTED; newest[p] = has(cached[s], p); move_slot(s, READING, NONE, swap_cache_take); without_frame(s);
                arrived(s, true); page[p].sealed = 1 }
            fi
#ifndef MUTANT_NO_RECHECK
        :: else -> /* discarded while it was read */
            d_step { move_slot(s, READING, NONE, swap_cache_end_read); without_frame(s); uncharge(); settle_slot(s) }
#endif
        fi;
        d_step { unlock(p) };
        inside[m] = inside[m] - served;
        goto again
    };
loses:  atomic { /* page_in_poison */
        p = slot[s].owner - 1;
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
        inside[m] = inside[m] - served;
        goto again
    }
}

/* ---- a thread of the program, which serves its own faults (fault/bring_in.c, fault/fault.c) ---- */

inline serve() { /* page locked; result: 0 done, 1 no frame, 2 READING by others, 3 READING by this one, 4 a copy is to be made */
    s = page[p].entry;
    if :: s > 0 -> s-- :: else fi;
    freed[THREAD(m, t)] = 0;
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
        newest[p] = has(cached[s], p);
        entry[p] = (keep && seal && !write -> PROTECTED : WRITABLE);
        move_slot(s, CLEAN, NONE, swap_cache_take);
        without_frame(s);
        arrived(s, keep);
        page[p].sealed = (entry[p] == PROTECTED)
    :: page[p].state == SWAPPED && slot[s].state == DIRTY ->
        assert(slot[s].pins == 0);
        newest[p] = has(cached[s], p);
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

proctype thread(byte m; byte t) IN_TURN {
    byte p, s, i, result;
    bit write, keep, seal;
end: MORTAL do
    :: atomic { !calm && is_alive(m) -> some_page();
        if
        :: entry[p] != ABSENT -> assert(newest[p]) /* a load: no store lost, nothing stale read */
        :: entry[p] == WRITABLE -> d_step { age(p); newest[p] = 1 }; some_value() /* a store */
        :: entry[p] == ABSENT -> write = 0; goto fault
        :: entry[p] != WRITABLE -> write = 1; goto fault
        fi;
        p = 0
    };
    goto end;
fault: atomic { is_open(m) && !page[p].lock -> page[p].lock = 1;
        if :: keep = 0 :: keep = 1 fi;
        if :: seal = 0 :: seal = 1 fi;
        d_step { serve(); keep = 0; seal = 0 };
        if
        :: result == 0 || result == 5 -> assert(result == 0 || lost[p]); goto again
        :: result == 1 -> starved[m]++; goto no_frames
        :: result == 2 -> goto waits
        :: result == 3 -> inside[m]++; result = 0; goto reads
        :: result == 4 -> inside[m]++
        fi
    };
    atomic { /* serve_copy: the frame is pinned; its write may end at any time */
        newest[p] = has(cached[s], p);
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
            unlock(p);
            inside[m]--
        };
        goto again
    };
reads:
    complete(s, false, 1);
waits: atomic { /* await_read: WAITERS first, then the look */
        if
#ifdef MUTANT_SLEEPS_ON_ANY_READ
        :: page[p].state == SWAPPED && slot[SLOT].state == READING -> page[p].waiters = 1; asleep[THREAD(m, t)] = p + 1
#else
        :: page[p].state == SWAPPED && slot[SLOT].state == READING && slot[SLOT].wanted -> page[p].waiters = 1; asleep[THREAD(m, t)] = p + 1
#endif
        :: else -> goto fault
        fi
    };
    atomic { asleep[THREAD(m, t)] == 0 -> goto fault };
no_frames: atomic { freed[THREAD(m, t)] || !no_frame -> starved[m]--; goto fault };
again: atomic { p = 0; s = 0; result = 0; write = 0 };
    goto end
    od
    UNTIL_DEATH(m, p = 0; s = 0; i = 0; result = 0; write = 0; keep = 0; seal = 0)
}

/* ---- read-ahead: the fault thread (swap/page_in.c) ---- */

proctype ahead(byte m) IN_TURN {
    byte p, s, i;
    bit marker;
end: MORTAL do
    :: atomic { !calm && is_open(m) && !no_frame -> some_page();
        if
        :: page[p].state == SWAPPED && !page[p].lock && slot[SLOT].state == NONE ->
            d_step { s = SLOT; charge(); move_slot(s, NONE, READING, swap_cache_claim_read) };
            if :: marker = 0 :: marker = 1 fi
        :: else -> p = 0; goto end
        fi
    };
    complete(s, marker, 0);
again: atomic { p = 0; s = 0; marker = 0 }
    od
    UNTIL_DEATH(m, p = 0; s = 0; i = 0; marker = 0)
}
