/*
 * private_fork.pml - a fork as a snapshot: slots that two processes use, and deaths (csrc/fork, swap/holders.c). README, "Fork", which numbers the steps.
 *
 * The forking thread is one more than the parent's THREADS.
 */

/* ---- the parent: steps 3 to 7 (fork/prepare.c, fork/evict_all.c) ---- */

#define FLOOR 1 /* frames that the child must have */

#if SLOTS == 2
#define all_slots(what) (what(0) && what(1))
#define any_slot(what) (what(0) || what(1))
#else
#define all_slots(what) (what(0) && what(1) && what(2))
#define any_slot(what) (what(0) || what(1) || what(2))
#endif
#define is_done(s) (slot[s].state != READING && slot[s].state != WRITING)

inline drop_cached() { /* not safe: contents in no slot and in no region */
    p = 0;
    do
    :: p < PAGES ->
        if
        :: page[p].state == SWAPPED && slot[SLOT].state == CLEAN ->
            s = SLOT;
            move_slot(s, CLEAN, NONE, swap_cache_take); without_frame(s); uncharge()
        :: else
        fi;
        if :: page[p].state == SWAPPED && slot[SLOT].state != NONE -> safe = 0 :: else fi;
        p++
    :: else -> p = 0; s = 0; break
    od
}

inline lend() { /* step 5 */
    do
    :: p < PAGES ->
#ifndef MUTANT_FORK_HOLDS_NOTHING
        if :: page[p].entry > 0 -> held[SLOT] = 1 :: else fi;
#endif
        p++
    :: else -> p = 0; break
    od
}

/* Step 6: the kernel copies page words and what is mapped; not the write-protection, which is of the parent's descriptor. */
inline copy_page(p, q) {
    page[q].state = page[p].state;
    page[q].waiters = page[p].waiters;
    page[q].entry = (page[p].entry > 0 -> page[p].entry + SLOTS : 0);
    value[q] = value[p];
    lost[q] = lost[p];
    entry[q] = (entry[p] != ABSENT -> WRITABLE : ABSENT);
    newest[q] = newest[p];
#ifdef MUTANT_FORK_KEEPS_THE_SEAL
    page[q].sealed = page[p].sealed;
#endif
    used_frames[1] = used_frames[1] + (entry[q] != ABSENT); /* count_stuck */
    i = 0;
    do
    :: i < SLOTS -> /* the same contents */
        if :: has(data[i], p) -> data[i] = data[i] | BIT(q) :: else fi;
        if :: has(sum[i], p) -> sum[i] = sum[i] | BIT(q) :: else fi;
        i++
    :: else -> i = 0; break
    od
}

proctype forking(byte m) IN_TURN {
    byte p, s, kept, i;
    bit out_ahead, fills, stuck, safe;
    {
    atomic { !calm -> closed = 1 };
#ifdef MUTANT_FORK_DOES_NOT_DRAIN
    atomic { inside[0] == 0 -> if :: stuck = 0 :: stuck = 1 fi };
#else
    atomic { inside[0] == 0 && all_slots(is_done) -> if :: stuck = 0 :: stuck = 1 fi }; /* gate_close, end_io */
#endif
    do
    :: atomic { p < PAGES -> /* page_out_range; what is stuck is locked in memory */
        assert(!page[p].lock);
        if :: !stuck && page[p].state == RESIDENT -> some_fill(); page_out() :: else fi;
        s = 0; kept = 0; fills = 0; p++ }
    :: atomic { p == PAGES -> p = 0; break }
    od;
#ifdef MUTANT_FORK_DOES_NOT_DRAIN
    atomic { true ->
#else
    atomic { all_slots(is_done) && inside[0] == 0 ->
#endif
        d_step { safe = 1; drop_cached(); p = 0 };
        if
#ifndef MUTANT_FORK_DOES_NOT_DRAIN
        :: !safe || used_frames[0] + FLOOR > limit[0] -> goto resume /* no snapshot: the child has no access to the regions */
        :: safe && used_frames[0] + FLOOR <= limit[0] ->
#else
        :: true ->
#endif
            d_step { lend(); limit[0] = limit[0] - FLOOR; limit[1] = FLOOR }
        fi
    };
    atomic {
        d_step {
            do
            :: p < PAGES -> copy_page(p, p + PAGES); p++
            :: else -> p = 0; break
            od;
            born = 1
        }
    };
resume: atomic { closed = 0; stuck = 0; safe = 0 };
    false /* unreached: it waits for its death */
    UNTIL_DEATH(0, p = 0; s = 0; kept = 0; i = 0; fills = 0; stuck = 0; safe = 0)
}

/* ---- the child: step 9 (fork/own_slots.c) ---- */

proctype birth() IN_TURN {
    byte p, s, i;
    {
    atomic { born -> d_step { /* hashes: of slots that it holds, so they stay as they are, whatever the parent does, or if it is dead */
        p = PAGES;
        do
        :: p < 2 * PAGES ->
            if
            :: page[p].entry > 0 ->
                s = SLOT;
                sum[s] = sum[s - SLOTS];
                slot[s].count = 1; slot[s].taken = 1; slot[s].owner = p + 1
            :: else
            fi;
            p++
        :: else -> p = 0; s = 0; break
        od;
        alive[1] = 1 } };
    false /* unreached: it waits for its death */
    UNTIL_DEATH(1, p = 0; s = 0; i = 0)
}

/* ---- slots that are lent (swap/holders.c) ---- */

/* holders_release has two words: the child may die between them, so its burial counts in any case. */
proctype release() IN_TURN {
end: { do
    :: atomic { owed -> owed = 0; due = 1 }
    od
    UNTIL_DEATH(1, skip)
}

inline return_slot(s) {
    move_slot(s, LENT, NONE, take_back);
    give(s)
}

/* holders_lend, by whoever has given a slot up: the look (settle_slot), LENT, another look. */
proctype lender(byte m; byte s) IN_TURN {
    byte i;
end: { do
    :: atomic { lending[s] == 1 -> move_slot(s, NONE, LENT, holders_lend); lending[s] = 2 }
    :: atomic { lending[s] == 2 -> lending[s] = 0;
        if
#ifdef MUTANT_LENDS_WITHOUT_A_LOOK
        :: false
#else
        :: slot[s].state == LENT && !held[s] -> d_step { return_slot(s) }
#endif
        :: else
        fi }
    od
    UNTIL_DEATH(0, skip)
}

#define is_lent(s) (lending[s] > 0 || slot[s].state == LENT)

/* The parent's tending: holders_sweep; holders_look, of a child that is dead, whose chunks come back. */
proctype tend(byte m) IN_TURN {
    byte k;
    bit gone;
end: { do
    :: atomic { is_open(0) && due && any_slot(is_lent) -> due = 0; inside[0]++ };
        do
        :: atomic { k < SLOTS -> if :: slot[k].state == LENT && !held[k] -> d_step { return_slot(k) } :: else fi; k++ }
        :: atomic { k == SLOTS -> k = 0; inside[0]--; break }
        od
    :: atomic { dead[1] && !buried && !closed -> skip };
        do
        :: atomic { k < SLOTS -> if :: held[k] -> held[k] = 0; gone = 1 :: else fi; k++ }
        :: atomic { k == SLOTS -> d_step {
            k = 0;
#ifdef MUTANT_BURIES_WITHOUT_A_SWEEP
            due = (gone -> 1 : due);
#else
            due = 1;
#endif
            gone = 0;
            limit[0] = limit[0] + limit[1]; limit[1] = 0;
            buried = 1 };
            break }
        od
    od
    UNTIL_DEATH(0, k = 0; gone = 0)
}

/* ---- deaths ---- */

inline forget_side(d) {
    alive[d] = 0; dead[d] = 1;
    inside[d] = 0; starved[d] = 0; used_frames[d] = 0;
    k = 0;
    do
    :: k < THREADS -> freed[THREAD(d, k)] = 0; asleep[THREAD(d, k)] = 0; k++
    :: else -> break
    od;
    k = d * PAGES;
    do
    :: k < (d + 1) * PAGES ->
        page[k].state = ZERO; page[k].lock = 0; page[k].waiters = 0; page[k].sealed = 0; page[k].entry = 0;
        entry[k] = ABSENT; newest[k] = 0; value[k] = 0; lost[k] = 0;
        age(k);
        k++
    :: else -> break
    od;
    k = d * SLOTS;
    do
    :: k < END_SLOT(d) ->
        slot[k].state = NONE; slot[k].count = 0; slot[k].pins = 0; slot[k].wanted = 0; slot[k].stays = 0; slot[k].bad = 0;
        slot[k].taken = 0; slot[k].owner = 0; cached[k] = 0;
        if
        :: d == 0 && held[k] /* it stays as it is: the child may not have seen it yet */
        :: d == 0 && !held[k] -> sum[k] = 0; data[k] = 0; lending[k] = 0
        :: d == 1 -> sum[k] = 0
        fi;
        k++
    :: else -> k = 0; break
    od
}

proctype death(byte d) IN_TURN {
    byte i, k;
    atomic { !calm && born && !dead[d] -> d_step {
        forget_side(d);
        if :: d == 0 -> closed = 0; due = 0; lending[0] = 0; lending[1] = 0 :: else -> owed = 0 fi;
        turn = first_pid[d] } }
}

inline run_parent() {
    first_pid[0] = 1;
    do
    :: k < SLOTS -> run lender(0, k); k++
    :: else -> k = 0; break
    od;
    run tend(0);
    last_pid[0] = run forking(0);
    first_pid[1] = last_pid[0] + 1
}

inline run_child() {
    run birth();
    last_pid[1] = run release();
#if CRASH
    run death(1);
#endif
#if CRASH > 1
    run death(0)
#else
    skip
#endif
}

/* Who holds what uses it, and nothing is lent to nobody. */
inline check_holders() {
    assert(turn == 0 && !closed && (!born || alive[1] || dead[1])); /* the fork has ended; spin knows no end states under "unless" (pan -E) */
    do
    :: i < SLOTS ->
        assert(!alive[1] || held[i] == (slot[i + SLOTS].count > 0));
        assert(!alive[0] || alive[1] || !held[i]);
        assert(!alive[0] || ((slot[i].state == LENT) == (held[i] && slot[i].count == 0)));
        i++
    :: else -> i = 0; break
    od;
    assert(!alive[0] || limit[0] + limit[1] == FRAMES)
}
