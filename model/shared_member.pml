/* shared_member.pml - faults and reads of a member: the thread "uswap-share" (shared_fault.c, shared_in.c). */

/* ---- what a member's threads do ---- */

inline map_here(p) { /* shared_map_here: CONTINUE, or EEXIST and the protection off; wakes */
    if
    :: word[p].sealed && entry[CELL(m, p)] == ABSENT -> entry[CELL(m, p)] = PROTECTED
    :: !word[p].sealed -> entry[CELL(m, p)] = WRITABLE
    :: else
    fi;
    wake_in(m, p)
}

inline map_in(k, p) { /* shared_map_peers; EEXIST changes nothing */
    if
    :: !dead[k] && entry[CELL(k, p)] == ABSENT -> entry[CELL(k, p)] = (word[p].sealed -> PROTECTED : WRITABLE);
        wake_in(k, p)
    :: else
    fi
}

inline map_peers(p) {
#if MAP_FOR_PEERS
    d_step {
        if :: m != 0 -> map_in(0, p) :: else fi;
        if :: m != MEMBERS - 1 -> map_in(MEMBERS - 1, p) :: else fi
    }
#else
    skip
#endif
}

/* For late readers: who seems to be stopped may only be slow. So anybody's read may be broken off at any time. */
#ifdef MUTANT_TAKES_OVER_A_STEP
#define unlocked(p) true
#else
#define unlocked(p) (!word[p].lock)
#endif
#define may_break(p) (word[p].state == READING && unlocked(p) && word[p].member != m + 1 && ((BREAKS && !calm) || dead[word[p].member - 1]))

/*
 * A read that another breaks off cannot become right again where its member has one of a page at most: to read the page anew it must have ended this one.
 * So what it was from and to is forgotten at once.
 */
#if UNITS == 1 && !defined(MUTANT_LATE_READER) && !defined(MUTANT_TAKES_OVER_A_STEP)
#define STALE (SLOTS + 1)
#define take_read(p) d_step { \
        if :: dead[word[p].member - 1] :: else -> i = CELL(word[p].member - 1, p); reads[i] = STALE; read_frame[i] = 0; ahead[i] = 0; i = 0 fi; \
        word[p].lock = 1; word[p].member = m + 1 }
#else
#define take_read(p) word[p].lock = 1; word[p].member = m + 1
#endif

inline forget_read(p) {
    reads[UNIT(m, p, u)] = 0;
    read_frame[UNIT(m, p, u)] = 0;
    ahead[UNIT(m, p, u)] = 0;
    u = 0
}

/* Whether the read that has ended is this page's still, and nobody has it. */
#ifdef MUTANT_LATE_READER
#define lock_read(p) (!word[p].lock && word[p].state == READING)
#else
#define lock_read(p) (word[p].field == f && frame[f].field == s + 1 && !word[p].lock && word[p].state == READING && word[p].member == m + 1)
#endif
#define lock_writing(p) (!word[p].lock && word[p].state == WRITING && word[p].member == m + 1)

/*
 * The contents of a slot are looked at when its read is ended, though the device has brought them before: is_right compares them with what is noted
 * for the slot then, and reads it again if they differ.
 */
#define is_right(s) (data[s] == sum[s])

inline fill(p) {
    file[p] = (data[s] == p + 1 -> NEW : OLD)
}

inline claim_slot() {
    s = 0;
    do
    :: s < SLOTS && slot[s].kind != FREE -> s++
    :: else -> break
    od;
    if
    :: s < SLOTS -> move_slot(s, FREE, CLAIMED, slot_table_claim); slot[s].member = m + 1
    :: else
    fi
}

inline start_over() {
    f = 0; s = 0; kept = 0; kind = CHOSEN; out_new[CELL(m, p)] = 0
}

/*
 * Between two steps the last member may die (STEP), and, where the page is not locked by it, others go on, too (POINT): docs/model.md says why nobody can
 * see the steps under a page's lock one by one. With FINE others go on at each of them. The handshake breaks up the atomic sequence.
 */
#if CRASH
chan point = [0] of { bit };
#define POINT ; if :: m == MEMBERS - 1 -> point ! 0; IF_DEAD :: else fi;
#if FINE
#define STEP POINT
#else
#define STEP ; if :: m == MEMBERS - 1 && !calm -> d_step { die(m) }; goto gone :: true fi;
#endif
#else
#define POINT ;
#define STEP ;
#endif

inline unlock_and_wake(p) {
    d_step { unlock(p) };
    if
    :: waiters -> skip POINT d_step { waiters = 0; wake(p) } /* unreached: in evict and discard, whose lock others see with FINE=1 alone */
    :: else
    fi
}

/* READING of another, locked by m => SWAPPED. */
inline break_read(p) {
    d_step { f = word[p].field; s = frame[f].field - 1; assert(s < SLOTS); begin_leave_frame(f) } STEP
    d_step { move_page(p, READING, SWAPPED, shared_break_read); word[p].field = s; s = 0 } STEP
    d_step { end_leave_frame(f) } STEP
    d_step { release_frame(f); f = 0 }
}

/* SWAPPED, locked by m => READING; f == FRAMES: there is no frame, or no memory for the read. */
inline claim(p) {
    d_step {
        s = word[p].field;
        f = FRAMES;
        u = 0;
        do
        :: u < UNITS && reads[UNIT(m, p, u)] -> u++
        :: else -> break
        od;
        if :: u < UNITS -> claim_frame() :: else fi
    };
    if
    :: f == FRAMES -> u = 0
    :: else ->
        skip STEP
        frame[f].page = 0 STEP
        d_step { frame[f].page = p + 1; frame[f].field = s + 1 } STEP /* frame_table_aim */
        d_step { move_page(p, SWAPPED, READING, claim); word[p].field = f } STEP
        d_step { settle_frame(f); reads[UNIT(m, p, u)] = s + 1; read_frame[UNIT(m, p, u)] = f; ahead[UNIT(m, p, u)] = looks_ahead; u = 0 }
    fi;
    s = 0
}

/* ZERO, locked by m => RESIDENT; f == FRAMES: there is none. */
inline fresh(p) {
    d_step { claim_frame() };
    if
    :: f == FRAMES
    :: else ->
        skip STEP
        frame[f].page = 0 STEP
        frame[f].page = p + 1 STEP /* frame_table_aim */
        d_step { assert(zeroes[p] && file[p] == HOLE); file[p] = NEW } STEP /* fallocate */
        d_step { move_page(p, ZERO, RESIDENT, fresh); word[p].field = f; word[p].sealed = 0 } STEP
        d_step { settle_frame(f) } STEP
        d_step { map_here(p) };
        map_peers(p)
    fi
}

inline serve_fault(p) { /* shared_fault */
    d_step { try_lock(p, true) };
    if
    :: !got ->
        if
        :: may_break(p) -> take_read(p); got = 1 STEP break_read(p)
        :: true /* WAITERS is set: who unlocks wakes */
        fi
    :: got
    fi;
    if
    :: got ->
        got = 0 STEP
        if
        :: word[p].state == ZERO -> fresh(p)
        :: word[p].state == SWAPPED -> claim(p)
        :: word[p].state == RESIDENT ->
            d_step {
                f = 0;
                if
                :: word[p].sealed && entry[CELL(m, p)] == PROTECTED -> word[p].sealed = 0 /* shared_unseal: a store's */
                :: else
                fi
            } STEP
            d_step { map_here(p) };
            map_peers(p)
        :: word[p].state == POISONED -> d_step { f = 0; entry[CELL(m, p)] = POISON; wake_in(m, p) }
        fi;
        d_step { if :: f == FRAMES -> parked[CELL(m, p)] = 1 :: else fi; f = 0 } STEP
        unlock_and_wake(p)
    :: else
    fi
}

inline read_ahead(p) { /* read_page */
    d_step { try_lock(p, false) };
    if
    :: got ->
        got = 0 STEP
        if
        :: word[p].state == SWAPPED -> looks_ahead = 1; claim(p); looks_ahead = 0; f = 0
        :: else
        fi STEP
        unlock_and_wake(p)
    :: else
    fi
}

/* READING, locked by m: the read has failed. */
inline lose(p) {
    d_step { assert(ERRORS > 0); forget_read(p); begin_leave_frame(f) } STEP /* unreached: as a step of its own: no errors beside a death */
    begin_leave_slot(s) STEP /* unreached: the same */
    d_step { move_page(p, READING, POISONED, lose); word[p].field = 0; lost[p] = 1 } STEP
    d_step { end_leave_frame(f) } STEP
    d_step { release_frame(f) } STEP
    d_step { end_leave_slot(s) } /* each member marks it when it is touched there */
}

inline come_in(p) { /* unit_complete */
    d_step { f = read_frame[UNIT(m, p, u)]; s = reads[UNIT(m, p, u)] - 1; right = s < SLOTS && is_right(s) && !fails; fails = 0 };
    if
#ifdef MUTANT_IN_VAIN_WAKES_NOBODY
    :: !lock_read(p) -> d_step { forget_read(p); f = 0; s = 0; right = 0 }
#else
    :: !lock_read(p) -> d_step { forget_read(p); wake_in(m, p); f = 0; s = 0; right = 0 } /* end_in_vain: they look again */
#endif
    :: else ->
        word[p].lock = 1 STEP
        if
        :: !right -> lose(p)
        :: right -> /* shared_copy_here: contents and mapping in one step */
            d_step { fill(p); entry[CELL(m, p)] = PROTECTED; forget_read(p) } STEP
            d_step { move_page(p, READING, RESIDENT, settle); word[p].sealed = 1 };
            map_peers(p)
        :: right ->
            d_step { fill(p); forget_read(p) } STEP
            d_step { move_page(p, READING, RESIDENT, settle); word[p].sealed = 0 } STEP
            d_step { map_here(p) };
            map_peers(p)
#if READ_AHEAD
        :: right && ahead[CELL(m, p)] -> /* a marker: its soft fault asks for the next window */
            d_step { fill(p); forget_read(p) } STEP
            d_step { move_page(p, READING, RESIDENT, settle); word[p].sealed = 1 };
            s = SLOTS
#endif
#if ERRORS
        :: right && chances > 0 -> /* no memory: fill fails */
            d_step { chances--; forget_read(p); begin_leave_frame(f) } STEP
            d_step { move_page(p, READING, SWAPPED, take_back); word[p].field = s } STEP
            d_step { punch(p) } STEP
            d_step { end_leave_frame(f) } STEP
            d_step { release_frame(f) }
#endif
        fi STEP
        d_step { unlock(p) } POINT
        /* whose fault began the read is woken in any case */
        d_step { if :: waiters -> waiters = 0; wake(p) :: !waiters && s < SLOTS -> wake_in(m, p) :: else fi; f = 0; s = 0; right = 0 }
    fi
}

/* ---- the thread "uswap-share": faults, reads (shared_fault.c, shared_in.c) ---- */

proctype share(byte m) {
    byte p, f, s, u, i, k;
    bit waiters, got, looks_ahead, right, fails;
end:    do
        :: atomic { message[CELL(m, 0)] -> message[CELL(m, 0)] = 0; p = 0; serve_fault(p); p = 0 }
        :: atomic { parked[CELL(m, 0)] && can_retry(0) -> parked[CELL(m, 0)] = 0; p = 0; serve_fault(p); p = 0 }
        :: atomic { reads[UNIT(m, 0, 0)] -> p = 0; u = 0; come_in(p); p = 0 }
#if ERRORS
        :: atomic { chances > 0 && reads[UNIT(m, 0, 0)] ->
            chances--; p = 0; u = 0; fails = 1; come_in(p); p = 0 }
#endif
#if UNITS > 1
        :: atomic { reads[UNIT(m, 0, 1)] -> p = 0; u = 1; come_in(p); p = 0 }
#if ERRORS
        :: atomic { chances > 0 && reads[UNIT(m, 0, 1)] ->
            chances--; p = 0; u = 1; fails = 1; come_in(p); p = 0 }
#endif
#endif
#if READ_AHEAD
        :: atomic { !calm && !dead[m] && word[0].state == SWAPPED && !word[0].lock && can_retry(0) -> p = 0; read_ahead(p); p = 0 }
#endif
#if PAGES > 1
        :: atomic { message[CELL(m, 1)] -> message[CELL(m, 1)] = 0; p = 1; serve_fault(p); p = 0 }
        :: atomic { parked[CELL(m, 1)] && can_retry(1) -> parked[CELL(m, 1)] = 0; p = 1; serve_fault(p); p = 0 }
        :: atomic { reads[UNIT(m, 1, 0)] -> p = 1; u = 0; come_in(p); p = 0 }
#if ERRORS
        :: atomic { chances > 0 && reads[UNIT(m, 1, 0)] ->
            chances--; p = 1; u = 0; fails = 1; come_in(p); p = 0 }
#endif
#if UNITS > 1
        :: atomic { reads[UNIT(m, 1, 1)] -> p = 1; u = 1; come_in(p); p = 0 }
#if ERRORS
        :: atomic { chances > 0 && reads[UNIT(m, 1, 1)] ->
            chances--; p = 1; u = 1; fails = 1; come_in(p); p = 0 }
#endif
#endif
#if READ_AHEAD
        :: atomic { !calm && !dead[m] && word[1].state == SWAPPED && !word[1].lock && can_retry(1) -> p = 1; read_ahead(p); p = 0 }
#endif
#endif
        od;
        GONE({ p = 0; f = 0; s = 0; u = 0; i = 0; k = 0; waiters = 0; got = 0; looks_ahead = 0; right = 0; fails = 0 }) /* unreached: without a death */
}

#include "shared_evict.pml"
