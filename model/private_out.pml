/* private_out.pml - evictions, write-ahead, ends of writes, discards (reclaim/page_out.c, reclaim/inactive.c, region/region_discard.c). */

/* ---- evictions and write-ahead: a reclaimer (reclaim/page_out.c, reclaim/inactive.c) ---- */

#define may_reclaim (is_open(m) && (!calm || starved[m] > 0))

inline take_slot() { /* s == END_SLOT(m): there is none */
    s = FIRST_SLOT(m);
    do
    :: s < END_SLOT(m) && slot[s].taken -> s++
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
        :: kept > 0 && !slot[kept - 1].bad && newest[p] && has(sum[kept - 1], p) -> /* is_clean */
            move_state(p, RESIDENT, SWAPPED, leave_swapped);
            if
            :: out_ahead && slot[kept - 1].state == NONE ->
                move_slot(kept - 1, NONE, CLEAN, swap_cache_add_clean); slot[kept - 1].stays = 1; cached[kept - 1] = BIT(p)
            :: else -> uncharge()
            fi
        :: else ->
            take_slot();
            if
            :: s == END_SLOT(m) -> entry[p] = WRITABLE /* put_back: no slot */
            :: else ->
                assert(slot[s].state == NONE && slot[s].count == 0); /* I6 */
                slot[s].taken = 1; slot[s].count = 1; slot[s].owner = p + 1; slot[s].stays = out_ahead;
                cached[s] = copy_of(p);
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

/* RESIDENT, nobody has it => gone, if it can go. */
inline page_out() {
    page[p].lock = 1;
    d_step {
        entry[p] = ABSENT; /* transport_out, or drop_mapped: from here on a store waits for the lock */
        if
        :: page[p].sealed -> move_state(p, RESIDENT, SWAPPED, publish); uncharge() /* sealed_drop */
        :: else -> publish()
        fi;
        unlock(p)
    }
}

proctype reclaimer(byte m) IN_TURN {
    byte p, s, kept, i;
    bit out_ahead, fills;
end: MORTAL do
    :: atomic { may_reclaim -> some_page();
        if
        :: page[p].state == RESIDENT && !page[p].lock ->
            if :: out_ahead = 0 :: out_ahead = 1 fi;
            some_fill();
            page_out()
        :: page[p].state == SWAPPED && !page[p].lock && slot[SLOT].state == CLEAN && slot[SLOT].pins == 0 -> /* inactive_drop */
            d_step { s = SLOT; move_slot(s, CLEAN, NONE, swap_cache_take); without_frame(s); uncharge(); settle_slot(s) }
        :: else
        fi;
        p = 0; s = 0; out_ahead = 0; fills = 0
    }
    od
    UNTIL_DEATH(m, p = 0; s = 0; kept = 0; i = 0; out_ahead = 0; fills = 0)
}

/* ---- the ends of writes (page_out_complete): one process a slot, so that they come in any order ---- */

proctype writer(byte m; byte s) IN_TURN {
    byte p, i;
end: MORTAL do
    :: atomic { slot[s].state == WRITING ->
        d_step {
            data[disk(s)] = cached[s];
            if
            :: slot[s].pins > 0 || (slot[s].stays && slot[s].count > 0) -> move_slot(s, WRITING, CLEAN, swap_cache_end_write)
            :: else -> move_slot(s, WRITING, NONE, swap_cache_end_write); without_frame(s); uncharge(); settle_slot(s)
            fi
        } }
#if ERRORS
    :: atomic { slot[s].state == WRITING && chances > 0 -> /* swap_cache_fail_write */
        chances--;
        inside[m]++;
        p = slot[s].owner - 1;
        slot[s].bad = 1;
        if
        :: slot[s].count == 0 && slot[s].pins == 0 ->
            d_step { move_slot(s, WRITING, NONE, swap_cache_fail_write); without_frame(s); uncharge(); settle_slot(s) };
            p = 0;
            inside[m]--;
            goto end
        :: else -> move_slot(s, WRITING, DIRTY, swap_cache_fail_write)
        fi };
        atomic { /* take_back */
            !page[p].lock ->
            page[p].lock = 1;
            d_step {
                if
                :: page[p].entry == s + 1 && page[p].state == SWAPPED && slot[s].state == DIRTY ->
                    newest[p] = has(cached[s], p); entry[p] = WRITABLE;
                    move_slot(s, DIRTY, NONE, swap_cache_take); without_frame(s);
                    arrived(s, false)
                :: page[p].entry == s + 1 && page[p].state == RESIDENT && slot[s].state == DIRTY && slot[s].pins == 0 ->
                    move_slot(s, DIRTY, NONE, swap_cache_take); without_frame(s);
                    page[p].entry = 0; page[p].sealed = 0; put(s); uncharge()
                :: else
                fi;
                unlock(p);
                inside[m]--;
                p = 0
            }
        }
#endif
    od
    UNTIL_DEATH(m, p = 0; i = 0)
}

#if DISCARDS
proctype discard(byte m) IN_TURN { /* region_discard: nothing is mapped any more, and the slot is given up */
    byte p, s, i;
end: MORTAL do
    :: atomic { !calm && is_open(m) && discards > 0 -> some_page(); is_open(m) && !page[p].lock -> discards--; page[p].lock = 1;
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
    UNTIL_DEATH(m, p = 0; s = 0; i = 0)
}
#endif
