/* shared_death.pml - a member dies; a survivor mends (repair.c, mend.c). */

/* ---- death, and its repair by a survivor: README, "Death" ---- */

#if CRASH
inline land(p) {
    data[writes[CELL(d, p)] - 1] = (out_new[CELL(d, p)] -> p + 1 : 0);
    writes[CELL(d, p)] = 0;
    out_new[CELL(d, p)] = 0
}

proctype death(byte d) {
    byte p, i, k;
end: do
    :: point ? _
#if STOPS && PAGES == 1
    :: d_step { !calm && !dead[d] && !inside[CELL(d, 0)] -> die(d) } /* a call that has begun is ended before */
#else
    :: d_step { !calm && !dead[d] -> die(d) }
#endif
        /* What was being written may still reach its slot. */
    :: atomic { writes[CELL(d, 0)] && dead[d] -> land(0) }
#if PAGES > 1
    :: atomic { writes[CELL(d, 1)] && dead[d] -> land(1) }
#endif
    od
}

#endif

#if MENDS
/* What the page's word names, while it is locked by m, or in nobody's hand. */
#define has_frame(p, f) (in_frame(p) && word[p].field == f)

#define is_held_by_dead(word) ((word.lock || word.state == READING || word.state == WRITING || word.state == LEAVING) && word.member == d + 1)

/* shared_ref_lock, of the page that a frame or slot notes: r - 1; without one there is nothing to lock. */
inline lock_ref() {
    if
    :: r == 0 -> got = 1
    :: r > 0 -> p = r - 1; try_lock(p)
    fi
}

proctype repair(byte m; byte d) {
    byte p, f, s, i, k, r;
    bit waiters, got, all;
end:    do
        :: atomic { dead[d] && !mended[d] -> all = 1 };
#ifndef MUTANT_NO_BARRIER
        atomic { writes[CELL(d, 0)] == 0 && writes[CELL(d, PAGES - 1)] == 0 -> p = 0 }; /* wait_for_writes */
#endif

        /* mend_pages */
        do
        :: atomic { p == PAGES -> p = 0; break }
        :: atomic { p < PAGES && !is_held_by_dead(word[p]) -> p++ }
        :: atomic { p < PAGES && is_held_by_dead(word[p]) ->
            d_step { word[p].lock = 1; word[p].member = m + 1 } STEP /* shared_lock_of_dead */
            if
            :: word[p].state == READING -> /* undo_read */
                d_step { punch(p); f = word[p].field; frame[f].page = p + 1 } STEP
                d_step { seize_frame(f, LEAVING, frame_table_seize); frame[f].member = m + 1 } STEP
                s = frame[f].field;
                if
                :: s > 0 ->
                    slot[s - 1].page = p + 1 STEP
                    d_step { seize_slot(s - 1, PAGE, slot_table_seize); slot[s - 1].member = 0 } STEP
                    d_step { move_page(p, READING, SWAPPED, undo_read); word[p].field = s - 1; mark(p) }
                :: s == 0 -> d_step { move_page(p, READING, ZERO, undo_read); word[p].field = 0 }
                fi STEP
                d_step { end_leave_frame(f) } STEP
                d_step { release_frame(f) }
            :: word[p].state == SWAPPED ->
                d_step { punch(p); s = word[p].field; slot[s].page = p + 1 } STEP
                d_step { seize_slot(s, PAGE, slot_table_seize); slot[s].member = 0 }
            :: word[p].state == LEAVING ->
                d_step { punch(p); s = word[p].field; inside[CELL(d, p)] = 0 } STEP
                if
                :: s != NO_SLOT ->
                    slot[s].page = p + 1 STEP
                    d_step { if :: slot[s].kind != PAGE -> seize_slot(s, PAGE, slot_table_seize); slot[s].member = 0; renew(s) :: else fi }
                :: else
                fi STEP
                d_step {
                    if
                    :: s == NO_SLOT -> move_page(p, LEAVING, ZERO, mend_page); word[p].field = 0; word[p].sealed = 0
                    :: s != NO_SLOT -> move_page(p, LEAVING, SWAPPED, mend_page)
                    fi
                }
            :: word[p].state == ZERO || word[p].state == POISONED -> d_step { punch(p) }
            :: word[p].state == RESIDENT || word[p].state == WRITING ->
                d_step { f = word[p].field; frame[f].page = p + 1 } STEP
                d_step { seize_frame(f, PAGE, frame_table_seize); frame[f].member = 0 } STEP
                /* mend_kept_slot */
                s = frame[f].field;
                if
                :: s == 0
                :: s > 0 && is_of(s - 1, p) && word[p].state == RESIDENT
                :: s > 0 && is_of(s - 1, p) && word[p].state == WRITING ->
                    begin_leave_slot(s - 1) STEP
                    frame[f].field = 0 STEP
                    d_step { end_leave_slot(s - 1) }
                :: s > 0 && !is_of(s - 1, p) -> frame[f].field = 0
                fi STEP
                if
                :: word[p].state == WRITING -> d_step { move_page(p, WRITING, RESIDENT, mend_page); word[p].sealed = 0 }
                :: else -> word[p].sealed = 0
                fi
            fi STEP
            unlock_and_wake(p);
            d_step { f = 0; s = 0; p++ } }
        od;

        /* contents that came late, of pages that it had announced; that have stayed, of those that it was to punch */
        do
        :: atomic { p == PAGES -> p = 0; break }
        :: atomic { p < PAGES && !((at_work[CELL(d, p)] || ordered[CELL(d, p)]) && is_out(p)) -> p++ }
        :: atomic { p < PAGES && (at_work[CELL(d, p)] || ordered[CELL(d, p)]) && is_out(p) ->
            take_lock(p) STEP
            d_step { punch(p) } STEP
            unlock_and_wake(p);
            p++ }
        od;

        /* frame_table_of_dead: CLAIMED or LEAVING by it */
        do
        :: atomic { f == FRAMES -> f = 0; break }
        :: atomic { f < FRAMES && frame[f].member != d + 1 -> f++ }
        :: atomic { f < FRAMES && frame[f].member == d + 1 ->
            r = frame[f].page;
            d_step { lock_ref() };
            if
            :: !got -> all = 0
            :: got ->
                got = 0 STEP
                d_step {
                    if
                    :: frame[f].member != d + 1
                    :: frame[f].member == d + 1 && r > 0 && has_frame(p, f) -> seize_frame(f, PAGE, mend_locked); frame[f].member = 0
                    :: else -> seize_frame(f, FREE, mend_locked); frame[f].member = 0; frame[f].field = 0
                    fi
                } STEP
                if :: r > 0 -> unlock_and_wake(p) :: else fi
            fi;
            d_step { r = 0; p = 0; f++ } }
        od;

        /* slot_table_of_dead */
#if DISCARDS
        atomic { /* mend_unnamed */
            if
            :: named[d] > 0 && is_of(named[d] - 1, slot[named[d] - 1].page - 1) ->
                s = named[d] - 1; r = slot[s].page;
                d_step { lock_ref() };
                if
                :: !got -> all = 0
                :: got ->
                    got = 0 STEP
                    if
                    :: is_of(s, p) && !has_slot(p, s) -> d_step { begin_leave_slot(s) } STEP d_step { end_leave_slot(s) }
                    :: else
                    fi STEP
                    unlock_and_wake(p)
                fi;
                d_step { s = 0; r = 0; p = 0 }
            :: else
            fi
        };
#endif
        do
        :: atomic { s == SLOTS -> s = 0; break }
        :: atomic { s < SLOTS && slot[s].member != d + 1 -> s++ }
        :: atomic { s < SLOTS && slot[s].member == d + 1 ->
            r = slot[s].page;
            d_step { lock_ref() };
            if
            :: !got -> all = 0
            :: got ->
                got = 0 STEP
                if
                :: slot[s].member != d + 1
                :: slot[s].member == d + 1 && r > 0 && word[p].state == SWAPPED && word[p].field == s -> /* the only copy */
                    d_step { seize_slot(s, PAGE, mend_locked); slot[s].member = 0 } /* unreached: nothing is known that leads there */
                :: else ->
                    if
                    :: r > 0 && in_frame(p) && frame[word[p].field].field == s + 1 -> frame[word[p].field].field = 0
                    :: else
                    fi STEP
                    d_step { seize_slot(s, FREE, mend_locked); slot[s].member = 0; data[s] = 0; sum[s] = 0 }
                fi STEP
                if :: r > 0 -> unlock_and_wake(p) :: else fi
            fi;
            d_step { r = 0; p = 0; s++ } }
        od;

        /* wake_own; buried, if nothing was left for the next time */
        atomic {
            d_step {
                p = 0;
                do
#ifdef MUTANT_REPAIR_WAKES_NOBODY
                :: false
#else
                :: p < PAGES -> wake_in(m, p); p++
#endif
                :: else -> p = 0; break
                od;
                if
                :: all ->
                    do
                    :: p < PAGES -> at_work[CELL(d, p)] = 0; ordered[CELL(d, p)] = 0; inside[CELL(d, p)] = 0; p++
                    :: else -> p = 0; break
                    od
                :: else
                fi;
                mended[d] = all;
                all = 0
            };
            goto end
        }
        od;
gone:   false /* unreached: who mends does not die */
}
#endif

