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

proctype evict(byte m; byte p) {
    byte f, s, kept, stale, i, k;
    bit waiters, got, going, claimed, punched;
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
                kept = frame[f].field; /* as it is while the page is ours: note_kept_slot */
                if :: kept > 0 && !(is_of(kept - 1, p) && lock_writing(p) && word[p].field == f) -> kept = 0 :: else fi;
                kept_of[CELL(m, p)] = kept;
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
            d_step { data[s] = 0; writes[CELL(m, p)] = s + 1; claimed = 1 }
        };
leaves: atomic { /* the write has ended: note_written */
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
                move_slot(s, CLAIMED, RETIRED, slot_table_condemn); slot[s].member = 0; s = 0; claimed = 0 }
#endif
            fi
#if DISCARDS
        };
        atomic { alone(m) || dead[m]; IF_DEAD;
            enter(m)
#endif
            STEP
            /* let_go: may_go, and ours; the order; the frame */
            if
            :: kind == GIVEN_UP -> goto stays
            :: kind != GIVEN_UP && !calm -> goto stays /* held; the mappers have changed */
            :: kind != GIVEN_UP && !(lock_writing(p) && word[p].field == f) -> goto stays
            :: kind != GIVEN_UP && lock_writing(p) && word[p].field == f
            fi STEP
            d_step { ordered[CELL(m, p)] = 1; taken_back[CELL(m, p)] = 0 }
        };
        atomic { IF_DEAD;
            d_step {
                if
                :: frame[f].kind == PAGE -> move_frame(f, PAGE, GOING, frame_table_begin_go); frame[f].member = m + 1; going = 1
                :: else
                fi
            };
            if :: !going -> goto stays :: else fi
        };
        atomic { IF_DEAD; /* take_slots */
            if
            :: kind == CLEAN || kind == SEALED ->
                d_step {
                    if
#ifdef MUTANT_KEPT_WITHOUT_A_LOOK
                    :: is_of(kept - 1, p) ->
#else
                    :: is_of(kept - 1, p) && kept_of[CELL(m, p)] == kept ->
#endif
                        s = kept - 1; move_slot(s, PAGE, CLAIMED, slot_table_claim_kept); slot[s].member = m + 1; claimed = 1
                    :: else
                    fi
                };
                if :: !claimed -> goto stays :: else fi
            :: kind == WRITTEN -> sum[s] = (out_new[CELL(m, p)] -> p + 1 : 0) /* slot_table_prepare */
            :: kind == EMPTY
            fi POINT
            d_step {
                if
#ifdef MUTANT_KEPT_WITHOUT_A_LOOK
                :: (kind == EMPTY || kind == WRITTEN) && kept > 0 && is_of(kept - 1, p) ->
#else
                :: (kind == EMPTY || kind == WRITTEN) && kept > 0 && is_of(kept - 1, p) && kept_of[CELL(m, p)] == kept ->
#endif
                    begin_leave_slot(kept - 1); stale = kept
                :: else
                fi
            }
        };
        atomic { IF_DEAD; /* the word */
            if
#ifdef MUTANT_NO_RECHECK
            :: !word[p].lock && (word[p].state == RESIDENT || word[p].state == WRITING) ->
                word[p].state = WRITING;
#else
            :: lock_writing(p) && word[p].field == f ->
#endif
                d_step {
                    if :: kind == EMPTY -> s = NO_SLOT :: else fi;
                    move_page(p, WRITING, LEAVING, let_go);
                    word[p].field = s;
                    word[p].member = m + 1;
                    check_word(p)
                }
            :: else -> goto stays
            fi
        };
        atomic { IF_DEAD;
            if :: claimed -> d_step { settle_slot(s, m + 1) } :: else fi
        };
        atomic { IF_DEAD; /* punch_ordered: the kernel looks for the argument, then goes over the range twice */
            if
            :: taken_back[CELL(m, p)] -> goto left
            :: else -> inside[CELL(m, p)] = 1
            fi
        };
        atomic { IF_DEAD;
            d_step { punch(p) }
#if BREAKS || CRASH
        };
        atomic {
            IF_DEAD;
            d_step { punch(p) }
#endif
            ;
            d_step { inside[CELL(m, p)] = 0; punched = 1 }
        };
left:   atomic { IF_DEAD;
            if
            :: !word[p].lock && word[p].state == LEAVING && word[p].member == m + 1 ->
                d_step {
                    if
                    :: kind == EMPTY -> move_page(p, LEAVING, ZERO, has_left); word[p].field = 0
                    :: kind != EMPTY -> move_page(p, LEAVING, SWAPPED, has_left); assert(word[p].field == s);
                        if :: !punched -> mark(p) :: else fi
                    fi;
                    moved(p)
                } POINT
                if :: waiters -> d_step { waiters = 0; wake(p) } :: else fi
            :: else /* shared_break_leave */
            fi
        };
        atomic { IF_DEAD;
            if
            :: !punched ->
#ifndef MUTANT_LEAVES_WHAT_STAYED
                drop_late(p);
#endif
                assert(CRASH || !is_out(p) || file[p] == HOLE) /* a frame is free only after its memory is */
            :: else
            fi STEP
#ifndef MUTANT_LOST_FRAME
            d_step {
                assert(frame[f].member == m + 1);
                move_frame(f, GOING, CLAIMED, frame_table_end_go);
                frame[f].field = 0
            } STEP
            d_step { release_frame(f) } STEP
#endif
            if :: stale > 0 -> d_step { end_leave_slot(stale - 1) } :: else fi POINT
            d_step { start_over(); leave(m) };
            goto end
        };
stays:  atomic {
            IF_DEAD;
            if
            :: (stale > 0 || (claimed && (kind == CLEAN || kind == SEALED))) && frame[f].field == kept -> frame[f].field = 0 /* frame_table_drop_slot */
            :: else
            fi STEP
            d_step {
                if
                :: going && frame[f].kind == GOING && frame[f].member == m + 1 -> move_frame(f, GOING, PAGE, frame_table_stay); frame[f].member = 0
                :: else
                fi
            } STEP
            if :: stale > 0 -> d_step { end_leave_slot(stale - 1) } :: else fi STEP
            if
#ifdef MUTANT_LOST_SLOT
            :: claimed && word[p].state != RESIDENT ->
#else
            :: claimed ->
#endif
                d_step {
                    assert(slot[s].member == m + 1);
                    move_slot(s, CLAIMED, FREE, slot_table_release);
                    slot[s].member = 0;
                    data[s] = 0; sum[s] = 0
                }
            :: else
            fi POINT
            if
            :: lock_writing(p) && word[p].field == f -> d_step { move_page(p, WRITING, RESIDENT, stays); moved(p) }
            :: else
            fi STEP
            d_step { start_over(); leave(m) };
            goto end
        }
        od;
        GONE({ start_over(); i = 0; k = 0; waiters = 0; got = 0 }) /* unreached: without a death */
}

/* ---- discards, by an API caller (shared_discard.c) ---- */

#if DISCARDS
#define LOOKER CELLS

proctype discard(byte m) {
    byte p, f, s, kept, stale, i, k;
    bit waiters, got, going, punched, left;
end:    do
        :: atomic { !dead[m] && !calm && discards > 0 -> discards--; some_page(); throwing[p] = 1;
looks:      IF_DEAD;
            if
            :: may_break(p) -> take_read(p) STEP break_read(p); goto again
            :: !word[p].lock && word[p].state == WRITING -> d_step { move_page(p, WRITING, RESIDENT, shared_take_back); word[p].sealed = 0; moved(p) }; goto again
            :: word[p].lock || word[p].state == READING || word[p].state == LEAVING -> goto ends /* it is waited for, or given up */
            :: !word[p].lock && word[p].state == RESIDENT && frame[word[p].field].kind == PAGE -> goto chooses
            :: !word[p].lock && word[p].state == RESIDENT && frame[word[p].field].kind != PAGE -> goto locks
            :: !word[p].lock && word[p].state == SWAPPED && !word[p].sealed -> s = word[p].field; goto names
            :: !word[p].lock && word[p].state == SWAPPED && word[p].sealed -> goto locks
            :: !word[p].lock && word[p].state == ZERO -> goto is_zero
            :: !word[p].lock && word[p].state == POISONED -> goto locks
            fi
        };
is_zero: atomic { IF_DEAD;
            assert(word[p].lock || word[p].state != ZERO || file[p] == HOLE || zeroes[p]); /* nothing of it is seen any more */
            goto ends
        };

        /* in memory */
chooses: atomic { alone(m) || dead[m]; IF_DEAD;
            if
            :: !word[p].lock && word[p].state == RESIDENT && frame[word[p].field].kind == PAGE ->
                d_step { enter(m); f = word[p].field; move_page(p, RESIDENT, WRITING, choose); word[p].member = m + 1; word[p].sealed = 1 }
            :: else -> goto again
            fi
        };
        atomic { IF_DEAD;
            d_step {
                kept = frame[f].field;
                if :: kept > 0 && !(is_of(kept - 1, p) && lock_discarding(p) && word[p].field == f) -> kept = 0 :: else fi;
                kept_of[LOOKER] = kept
            } STEP
            if :: announced(p) || calm -> goto stays :: else fi STEP /* calm: held; the mappers have changed */
            protect(p) POINT
            d_step { ordered[CELL(m, p)] = 1; taken_back[CELL(m, p)] = 0 }
        };
        atomic { IF_DEAD;
            d_step {
                if
                :: lock_discarding(p) && word[p].field == f && frame[f].kind == PAGE -> move_frame(f, PAGE, GOING, frame_table_begin_go); frame[f].member = m + 1; going = 1
                :: else
                fi
            };
            if :: !going -> goto stays :: else fi
        };
        atomic { IF_DEAD;
            d_step {
                if
                :: kept > 0 && is_of(kept - 1, p) && kept_of[LOOKER] == kept -> begin_leave_slot(kept - 1); stale = kept
                :: else
                fi
            }
        };
        atomic { IF_DEAD;
            if
            :: lock_discarding(p) && word[p].field == f ->
                d_step { move_page(p, WRITING, LEAVING, let_go); word[p].field = NO_SLOT; discarded[p] = 1; check_word(p) }
            :: else -> goto stays
            fi
        };
        atomic { IF_DEAD;
            if
            :: taken_back[CELL(m, p)] -> goto leaves
            :: else -> inside[CELL(m, p)] = 1
            fi
        };
        atomic { IF_DEAD;
            d_step { punch(p) }
#if BREAKS || CRASH
        };
        atomic {
            IF_DEAD;
            d_step { punch(p) }
#endif
            ;
            d_step { inside[CELL(m, p)] = 0; punched = 1 }
        };
leaves: atomic { IF_DEAD;
            if
            :: punched && !word[p].lock && word[p].state == LEAVING && word[p].member == m + 1 ->
                d_step { move_page(p, LEAVING, ZERO, has_left); word[p].field = 0; word[p].sealed = 0; moved(p) } POINT
                if :: waiters -> d_step { waiters = 0; wake(p) } :: else fi
            :: !punched && !word[p].lock && word[p].state == LEAVING && word[p].member == m + 1 -> end_discard(p)
            :: else
            fi
        };
        atomic { IF_DEAD;
            if
            :: !punched ->
                drop_late(p);
                assert(CRASH || !is_out(p) || file[p] == HOLE)
            :: else
            fi STEP
            d_step {
                assert(frame[f].member == m + 1);
                move_frame(f, GOING, CLAIMED, frame_table_end_go);
                frame[f].field = 0
            } STEP
            d_step { release_frame(f) } STEP
            if :: stale > 0 -> d_step { end_leave_slot(stale - 1) } :: else fi POINT
            left = 1;
            goto over
        };
stays:  atomic { IF_DEAD;
            if
            :: stale > 0 && frame[f].field == kept -> frame[f].field = 0
            :: else
            fi STEP
            d_step {
                if
                :: going && frame[f].kind == GOING && frame[f].member == m + 1 -> move_frame(f, GOING, PAGE, frame_table_stay); frame[f].member = 0
                :: else
                fi
            } STEP
            if :: stale > 0 -> d_step { end_leave_slot(stale - 1) } :: else fi POINT
            if
            :: lock_discarding(p) && word[p].field == f -> d_step { move_page(p, WRITING, RESIDENT, stays); word[p].sealed = 0; moved(p) }
            :: else
            fi;
            goto over
        };
over:   atomic { IF_DEAD;
            d_step {
                ordered[CELL(m, p)] = 0; taken_back[CELL(m, p)] = 0; kept_of[LOOKER] = 0; leave(m);
                f = 0; kept = 0; stale = 0; going = 0; punched = 0
            };
            if
            :: left && word[p].lock && word[p].state == ZERO -> left = 0; goto again /* whoever has ended it has not punched yet */
            :: left && !(word[p].lock && word[p].state == ZERO) -> left = 0; goto is_zero
            :: else -> goto ends
            fi
        };

        /* out */
names:  atomic { alone(m) || dead[m]; IF_DEAD; enter(m); named[m] = s + 1 };
        atomic { IF_DEAD;
            if
            :: !word[p].lock && word[p].state == SWAPPED && word[p].field == s && !word[p].sealed ->
                d_step {
                    move_page(p, SWAPPED, ZERO, discard_swapped);
                    word[p].field = 0;
                    assert(file[p] == HOLE);
                    zeroes[p] = 1; age(p);
                    got = 1;
                    moved(p)
                } POINT
                if :: waiters -> d_step { waiters = 0; wake(p) } :: else fi
            :: else
            fi
        };
        atomic { IF_DEAD;
            if
            :: got && is_of(s, p) && !has_slot(p, s) -> d_step { begin_leave_slot(s) } STEP d_step { end_leave_slot(s) }
            :: else
            fi STEP
            d_step { named[m] = 0; leave(m); s = 0 };
            if
            :: got -> got = 0; goto is_zero
            :: else -> goto again
            fi
        };

        /* under LOCK (shared_pages.c) */
locks:  atomic { IF_DEAD;
            if
            :: !is_free(p) -> goto ends
            :: else -> take_lock(p)
            fi STEP
            if
            :: announced(p) /* not now */
            :: else ->
                if
                :: word[p].state == RESIDENT -> /* discard_locked */
                    d_step {
                        f = word[p].field;
                        kept = frame[f].field;
                        if :: kept > 0 && !is_of(kept - 1, p) -> kept = 0 :: else fi;
                        begin_leave_frame(f)
                    } STEP
                    d_step { if :: kept > 0 && is_of(kept - 1, p) -> begin_leave_slot(kept - 1) :: else -> kept = 0 fi } STEP
                    d_step { move_page(p, RESIDENT, ZERO, discard_locked); word[p].field = 0; word[p].sealed = 0; discarded[p] = 1 } STEP
                    d_step { punch(p) } STEP
                    d_step { end_leave_frame(f) } STEP
                    d_step { release_frame(f) } STEP
                    if :: kept > 0 -> d_step { end_leave_slot(kept - 1) } :: else fi
                :: word[p].state == SWAPPED ->
                    d_step { s = word[p].field; begin_leave_slot(s) } STEP
                    d_step { move_page(p, SWAPPED, ZERO, shared_discard_page); word[p].field = 0; word[p].sealed = 0; discarded[p] = 1 } STEP
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
                :: word[p].state == ZERO
                fi
            fi STEP
            unlock_and_wake(p)
        };
ends:   atomic { IF_DEAD;
            d_step { throwing[p] = 0; p = 0; f = 0; s = 0; kept = 0 };
            goto end
        }
        od;
again:  atomic { IF_DEAD; goto looks };
        GONE({ throwing[p] = 0; p = 0; f = 0; s = 0; kept = 0; stale = 0; i = 0; k = 0; waiters = 0; got = 0; going = 0; punched = 0; left = 0 })
}
#endif
