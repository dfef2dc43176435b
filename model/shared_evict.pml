/* shared_evict.pml - evictions and discards (shared_hand.c, shared_out.c, shared_pages.c). */

/* ---- an eviction of a page: the thread "uswap-shout" (shared_hand.c, shared_out.c) ---- */

inline protect(p) { /* mappers_protect */
    d_step {
        k = 0;
        do
        :: k < MEMBERS -> if :: entry[CELL(k, p)] == WRITABLE -> entry[CELL(k, p)] = PROTECTED :: else fi; k++
        :: else -> k = 0; break
        od
    }
}

inline let_go(p) { /* WRITING, locked by m */
    if
    :: (kind == EMPTY || kind == WRITTEN) && kept > 0 -> begin_leave_slot(kept - 1)
    :: else
    fi STEP
    if
    :: kind == WRITTEN ->
        frame[f].field = s + 1 STEP /* frame_table_set_slot */
        d_step { /* the hash first, of a slot that is CLAIMED */
            sum[s] = (out_new[CELL(m, p)] -> p + 1 : 0);
            assert(slot[s].member == m + 1 && slot[s].page == p + 1); /* I17 */
            move_slot(s, CLAIMED, PAGE, slot_table_settle);
            slot[s].member = 0
        }
    :: kind == CLEAN || kind == SEALED -> s = kept - 1
    :: kind == EMPTY -> s = NO_SLOT
    fi STEP
    d_step { begin_leave_frame(f) } STEP
    /* slot_note_eviction writes the use word anew */
    d_step { move_page(p, WRITING, LEAVING, let_go); word[p].field = s; punching[CELL(m, p)] = 1 } STEP
    unlock_and_wake(p)
}

proctype evict(byte m; byte p) {
    byte f, s, kept, i, k;
    bit waiters, got;
    mtype kind = CHOSEN;
end:    do
        :: atomic { /* hand_choose: look_at, take */
            !dead[m] && (!calm || (frames_wanted && !announced(p))) && word[p].state == RESIDENT && !word[p].lock &&
            frame[word[p].field].kind == PAGE && frame[word[p].field].page == p + 1 ->
            d_step {
                f = word[p].field;
                kind = (word[p].sealed -> SEALED : CHOSEN);
                move_page(p, RESIDENT, WRITING, take);
                assert(!word[p].waiters);
                word[p].member = m + 1;
                word[p].sealed = 0
            }
        };
        atomic { /* slot_table_kept; mappers_protect */
            IF_DEAD;
#ifndef MUTANT_NO_ANNOUNCEMENT
            if :: announced(p) -> kind = GIVEN_UP; goto leaves :: else fi STEP
#endif
            d_step {
                kept = frame[f].field;
                if :: kept > 0 && !is_of(kept - 1, p) -> kept = 0 :: else fi;
                if :: kept == 0 -> kind = CHOSEN :: else fi
            };
            if
            :: kind == SEALED -> goto leaves
#ifdef MUTANT_NO_PROTECT
            :: else
#else
            :: else -> protect(p)
#endif
            fi POINT
            /* read_contents, judge; claim_slots, write_out */
            out_new[CELL(m, p)] = (file[p] == NEW);
            if
            :: file[p] == HOLE || (file[p] == NEW && zeroes[p]) -> kind = EMPTY
            :: file[p] == NEW && !zeroes[p] -> kind = DIRTY
            :: file[p] == OLD -> if :: kind = EMPTY :: kind = DIRTY fi
            fi;
            if
            :: kind == DIRTY && kept > 0 && is_of(kept - 1, p) && (sum[kept - 1] == p + 1) == out_new[CELL(m, p)] ->
                kind = CLEAN
            :: kind == DIRTY && !out_new[CELL(m, p)] /* two of the old ones may differ */
            :: else
            fi;
            if :: kind != DIRTY -> goto leaves :: else fi POINT
            d_step { claim_slot() };
            if :: s == SLOTS -> s = 0; kind = GIVEN_UP; goto leaves :: else fi STEP
            slot[s].page = 0 STEP
            slot[s].page = p + 1 STEP /* slot_table_aim */
            d_step { data[s] = 0; writes[CELL(m, p)] = s + 1 }
        };
leaves: atomic { /* the write has ended: note_written; lock_to_leave */
            IF_DEAD;
            if
            :: kind != DIRTY
#ifdef MUTANT_DROP_BEFORE_WRITE
            :: kind == DIRTY -> kind = WRITTEN
#else
            :: kind == DIRTY -> d_step { writes[CELL(m, p)] = 0; data[s] = (out_new[CELL(m, p)] -> p + 1 : 0); kind = WRITTEN }
#endif
#if ERRORS
            :: kind == DIRTY && chances > 0 -> d_step { writes[CELL(m, p)] = 0; chances--; kind = GIVEN_UP;
                move_slot(s, CLAIMED, RETIRED, slot_table_condemn); slot[s].member = 0; s = 0 }
#endif
            fi STEP
            if
#ifdef MUTANT_NO_RECHECK
            :: word[p].lock -> goto stays
            :: !word[p].lock && word[p].state == RESIDENT -> move_page(p, RESIDENT, WRITING, take); word[p].member = m + 1; goto leaves
            :: !word[p].lock && !lock_writing(p) && word[p].state != RESIDENT -> goto stays
#else
            :: !lock_writing(p) -> goto stays
#endif
            :: lock_writing(p) -> word[p].lock = 1 STEP
                if
                :: word[p].field != f
                :: word[p].field == f && kind != GIVEN_UP -> let_go(p); goto punches
                :: word[p].field == f && (kind == GIVEN_UP || !calm) -> /* or: held; the mappers have changed */
                    d_step { move_page(p, WRITING, RESIDENT, lock_to_leave) }
                fi STEP
                unlock_and_wake(p)
            fi;
            goto stays
        };
punches: atomic { /* finish; the kernel goes over the range twice */
            IF_DEAD;
            d_step { punch(p) }
#if BREAKS || CRASH
        };
        atomic {
            IF_DEAD;
            d_step { punch(p) }
#endif
            ;
            punching[CELL(m, p)] = 0
        };
        atomic {
            IF_DEAD;
#ifndef MUTANT_LOST_FRAME
            d_step { end_leave_frame(f) } STEP
            d_step { release_frame(f) } STEP
#endif
            if
            :: (kind == EMPTY || kind == WRITTEN) && kept > 0 -> d_step { end_leave_slot(kept - 1) }
            :: else
            fi POINT
            if
            :: !word[p].lock && word[p].state == LEAVING && word[p].member == m + 1 ->
                d_step {
                    if
                    :: kind == EMPTY -> move_page(p, LEAVING, ZERO, has_left); word[p].field = 0
                    :: kind != EMPTY -> move_page(p, LEAVING, SWAPPED, has_left); assert(word[p].field == s)
                    fi;
                    assert(file[p] == HOLE);
                    moved(p)
                } POINT
                if :: waiters -> d_step { waiters = 0; wake(p) } :: else fi
            :: else /* shared_break_leave */
            fi;
            d_step { start_over() };
            goto end
        };
stays:  atomic {
            IF_DEAD;
            d_step {
                if
#ifdef MUTANT_LOST_SLOT
                :: kind == WRITTEN && word[p].state != RESIDENT ->
#else
                :: kind == WRITTEN ->
#endif
                    assert(slot[s].member == m + 1);
                    move_slot(s, CLAIMED, FREE, slot_table_release);
                    slot[s].member = 0;
                    data[s] = 0
                :: else
                fi;
                start_over()
            };
            goto end
        }
        od;
        GONE({ start_over(); i = 0; k = 0; waiters = 0; got = 0 }) /* unreached: without a death */
}

/* ---- shared_discard_page, by an API caller (shared_pages.c) ---- */

#if DISCARDS
proctype discard(byte m) {
    byte p, f, s, kept, i, k;
    bit waiters, got;
end:    do
        :: atomic { !dead[m] && !calm && discards > 0 -> discards--; some_page();
looks:      IF_DEAD;
            if
            :: may_break(p) -> take_read(p) STEP break_read(p); goto again
            :: !word[p].lock && word[p].state == WRITING -> d_step { move_page(p, WRITING, RESIDENT, shared_take_back); moved(p) }; goto again
            :: word[p].lock || word[p].state == READING || word[p].state == LEAVING || word[p].state == ZERO -> goto ends
            :: else -> take_lock(p)
            fi STEP
            if
            :: announced(p) /* not now */
            :: else ->
                if
                :: word[p].state == RESIDENT -> /* discard_resident */
                    d_step {
                        f = word[p].field;
                        kept = frame[f].field;
                        if :: kept > 0 && !is_of(kept - 1, p) -> kept = 0 :: else fi;
                        begin_leave_frame(f)
                    } STEP
                    if :: kept > 0 -> begin_leave_slot(kept - 1) :: else fi STEP
                    d_step { move_page(p, RESIDENT, ZERO, discard_resident); word[p].field = 0; word[p].sealed = 0; discarded[p] = 1 } STEP
                    d_step { punch(p) } STEP
                    d_step { end_leave_frame(f) } STEP
                    d_step { release_frame(f) } STEP
                    if :: kept > 0 -> d_step { end_leave_slot(kept - 1) } :: else fi
                :: word[p].state == SWAPPED ->
                    d_step { s = word[p].field; begin_leave_slot(s) } STEP
                    d_step { move_page(p, SWAPPED, ZERO, shared_discard_page); word[p].field = 0; discarded[p] = 1 } STEP
                    d_step { punch(p) } STEP
                    d_step { end_leave_slot(s) }
                :: word[p].state == POISONED -> /* shared_unpoison: a page of zeroes over the marks */
                    d_step {
                        file[p] = NEW; zeroes[p] = 1; lost[p] = 0; age(p);
                        k = 0;
                        do
                        :: k < MEMBERS -> if :: !dead[k] -> entry[CELL(k, p)] = WRITABLE :: else fi; k++
                        :: else -> k = 0; break
                        od
                    } STEP
                    d_step { move_page(p, POISONED, ZERO, shared_discard_page); word[p].field = 0; discarded[p] = 1 } STEP
                    d_step { punch(p) }
                fi
            fi STEP
            unlock_and_wake(p);
ends:       IF_DEAD; d_step { p = 0; f = 0; s = 0; kept = 0 }
        }
        od;
again:  atomic { IF_DEAD; goto looks };
        GONE({ p = 0; f = 0; s = 0; kept = 0; i = 0; k = 0; waiters = 0; got = 0 }) /* unreached: discards without a death */
}
#endif
