/* shared_member.pml - faults and reads of a member: the thread "uswap-share" (shared_fault.c, shared_in.c). */

/* ---- what a member's threads do ---- */

/*
 * seals: what was seen of the page's word. CONTINUE, or EEXIST and the protection off; wakes. What the file has is right whenever it is mapped, and
 * no page goes while it is announced.
 */
inline map_here(p) { /* shared_map_here */
#ifndef MUTANT_MAPS_IN_VAIN
    assert(word[p].state == RESIDENT || word[p].state == WRITING);
    assert(file[p] == NEW);
#endif
    if
#ifdef MUTANT_MAPS_IN_VAIN
    :: file[p] == HOLE /* EFAULT */
#endif
    :: seals && entry[CELL(m, p)] == ABSENT -> entry[CELL(m, p)] = PROTECTED
    :: !seals && file[p] != HOLE -> assert(word[p].state != RESIDENT || !word[p].sealed); entry[CELL(m, p)] = WRITABLE
    :: else
    fi;
    wake_in(m, p)
}

inline map_in(k, p) { /* shared_map_peers; EEXIST changes nothing */
    if
    :: !dead[k] && entry[CELL(k, p)] == ABSENT -> entry[CELL(k, p)] = (seals -> PROTECTED : WRITABLE);
        wake_in(k, p)
    :: else
    fi
}

/* Others come between at the word BETWEEN; with APART at SEEN, too; MAPS_PEERS: for the peers, before the announcement ends. */
#define BETWEEN }; atomic { IF_DEAD;
#if APART
#define SEEN true;
#else
#define SEEN
#endif
#if MAP_FOR_PEERS
#define MAPS_PEERS BETWEEN d_step { \
        assert(file[p] == NEW); \
        if :: m != 0 -> map_in(0, p) :: else fi; \
        if :: m != MEMBERS - 1 -> map_in(MEMBERS - 1, p) :: else fi }
#else
#define MAPS_PEERS
#endif

/* For late readers: who seems to be stopped may only be slow. So anybody's read may be broken off at any time. */
#define seems_stopped(k) ((BREAKS && !calm) || dead[k])
#ifdef MUTANT_TAKES_OVER_A_STEP
#define unlocked(p) true
#else
#define unlocked(p) (!word[p].lock)
#endif
#define may_break(p) (word[p].state == READING && unlocked(p) && word[p].member != m + 1 && seems_stopped(word[p].member - 1))

/* Who evicts is not within the call that punches (the proof is not modelled, but what it shows): so its order can be taken back. */
#define may_end_leave(p) (word[p].state == LEAVING && !word[p].lock && word[p].member != m + 1 && seems_stopped(word[p].member - 1) && !inside[CELL(word[p].member - 1, p)])

/* shared_show: loads go on. */
#define may_show(p) ((word[p].lock || word[p].state == LEAVING) && word[p].state != POISONED && file[p] != HOLE && entry[CELL(m, p)] == ABSENT && \
    word[p].member != m + 1 && seems_stopped(word[p].member - 1))

/*
 * A read that another breaks off cannot become right again where its member has one of a page at most: to read the page anew it must have ended this one.
 * So what it was from and to is forgotten at once.
 */
#if UNITS == 1 && !defined(MUTANT_LATE_READER) && !defined(MUTANT_TAKES_OVER_A_STEP)
#define STALE (SLOTS + 1)
#define take_read(p) d_step { \
        f = word[p].member; \
        i = CELL(f - 1, p); \
        if :: reads[i] -> reads[i] = STALE; read_frame[i] = 0; ahead[i] = 0 :: else fi; \
        i = 0; word[p].lock = 1; word[p].member = m + 1 }
#else
#define STALE (s + 1)
#define take_read(p) d_step { f = word[p].member; word[p].lock = 1; word[p].member = m + 1 }
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
#define lock_writing(p) (!word[p].lock && word[p].state == WRITING && word[p].member == m + 1 && !word[p].sealed)
#define lock_discarding(p) (!word[p].lock && word[p].state == WRITING && word[p].member == m + 1 && word[p].sealed)
/* SWAPPED, and the file may have contents, or get them. */
#if defined(MUTANT_MARKS_NOTHING) || !DISCARDS /* nobody else looks for it */
#define mark(p) skip
#else
#define mark(p) word[p].sealed = 1
#endif

/*
 * The contents of a slot are looked at when its read is ended, though the device has brought them before: is_right compares them with what is noted
 * for the slot then, and reads it again if they differ.
 */
#define is_right(s) (data[s] == sum[s])

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
    f = 0; s = 0; kept = 0; kind = CHOSEN; stale = 0; going = 0; claimed = 0; punched = 0;
    out_new[CELL(m, p)] = 0; kept_of[CELL(m, p)] = 0;
    if :: !dead[m] -> ordered[CELL(m, p)] = 0; taken_back[CELL(m, p)] = 0 :: else fi
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

/* READING of another (f), locked by m => SWAPPED, or ZERO, and unlocked. */
inline break_read(p) {
    d_step { s = f; f = word[p].field; take_frame(f, s); s = frame[f].field } STEP
    d_step {
        if
        :: s > 0 -> move_page(p, READING, SWAPPED, shared_break_read); word[p].field = s - 1; mark(p)
        :: s == 0 -> move_page(p, READING, ZERO, shared_break_read); word[p].field = 0
        fi;
        s = 0
    } STEP
    d_step { end_leave_frame(f) } STEP
    d_step { release_frame(f); f = 0 } STEP
    unlock_and_wake(p)
}

inline take_lock(p) {
    d_step { assert(!word[p].lock); word[p].lock = 1; word[p].member = m + 1 }
}

/* Contents may have come late, of a page that is out. */
#ifdef MUTANT_LEAVES_POISONED
#define is_out(p) (!word[p].lock && (word[p].state == SWAPPED || word[p].state == ZERO))
#else
#define is_out(p) (!word[p].lock && (word[p].state == SWAPPED || word[p].state == ZERO || word[p].state == POISONED))
#endif
inline drop_late(p) { /* shared_drop_late */
    if
    :: is_out(p) ->
        take_lock(p) STEP
        d_step { punch(p) } STEP
        unlock_and_wake(p)
    :: else
    fi
}

/* LEAVING because it is discarded, whose order is taken back. */
inline end_discard(p) {
    d_step { word[p].lock = 1; word[p].member = m + 1 } STEP
    d_step { move_page(p, LEAVING, ZERO, end_discard); word[p].field = 0; word[p].sealed = 0 } STEP
    d_step { punch(p) } STEP
    unlock_and_wake(p)
}

/* READING from nothing, by m. */
#define makes_zeroes(p) (!word[p].lock && word[p].state == READING && word[p].member == m + 1 && word[p].field == f)

/* A frame for the page, claimed, and the page noted in it; f == FRAMES: there is none. */
inline no_frame(p) {
    d_step { parked[CELL(m, p)] = !looks_ahead; looks_ahead = 0; f = 0; s = 0; u = 0; p = 0 }
}

/* READING, locked by m: the read has failed. */
inline lose(p) {
    d_step { assert(ERRORS > 0); forget_read(p); begin_leave_slot(s) } STEP
    d_step { begin_leave_frame(f) } STEP
    d_step { move_page(p, READING, POISONED, lose); word[p].field = 0; lost[p] = 1 } STEP
    d_step { punch(p) } STEP
    d_step { end_leave_frame(f) } STEP
    d_step { release_frame(f) } /* each member marks it when it is touched there */
}

/* ---- the thread "uswap-share": faults, reads (shared_fault.c, shared_in.c) ---- */

#define may_read_ahead(p) (READ_AHEAD && !calm && !dead[m] && word[p].state == SWAPPED && !word[p].lock && can_retry(p))

/*
 * Each atomic is a step: one change of a page's word, or one call of the kernel. An announcement ends with the last of them: whoever sees it longer gives
 * up, which he may do at any time.
 */
proctype share(byte m) {
    byte p, f, s, u, i, k;
    bit waiters, got, looks_ahead, right, fails, seals;
end:    do
        :: atomic { /* shared_fault: the word decides */
            if
            :: message[CELL(m, 0)] -> message[CELL(m, 0)] = 0
            :: parked[CELL(m, 0)] && can_retry(0) -> parked[CELL(m, 0)] = 0
#if PAGES > 1
            :: message[CELL(m, 1)] -> message[CELL(m, 1)] = 0; p = 1
            :: parked[CELL(m, 1)] && can_retry(1) -> parked[CELL(m, 1)] = 0; p = 1
#endif
#if STOPS /* looks again, after 50 ms */
            :: dead[MEMBERS - 1] && asleep[CELL(m, 0)] && !parked[CELL(m, 0)] && (is_free(0) || (!word[0].lock && word[0].state == WRITING) || may_break(0) || may_end_leave(0) || may_show(0))
#endif
            fi;
faults:     IF_DEAD;
            if
            :: may_break(p) -> take_read(p) STEP break_read(p); goto again
            :: may_end_leave(p) -> at_work[CELL(m, p)] = 1; goto ends_leave
            :: may_show(p) -> goto shows
            :: word[p].lock || word[p].state == READING || word[p].state == LEAVING -> /* who unlocks wakes */
#ifndef MUTANT_NO_WAITERS
                word[p].waiters = 1;
#endif
                p = 0; goto end
            :: !word[p].lock && word[p].state == ZERO ->
                d_step { claim_frame() };
                if :: f == FRAMES -> no_frame(p); goto end :: else fi STEP
                frame[f].page = 0 STEP
                d_step { frame[f].page = p + 1; frame[f].field = 0 }; /* frame_table_aim */
                goto touches
            :: !word[p].lock && word[p].state == SWAPPED -> goto claims
            :: !word[p].lock && (word[p].state == RESIDENT || word[p].state == WRITING) -> at_work[CELL(m, p)] = 1; goto soft
            :: !word[p].lock && word[p].state == POISONED ->
                take_lock(p) STEP
                d_step { punch(p) } STEP
                d_step { assert(entry[CELL(m, p)] == ABSENT || entry[CELL(m, p)] == POISON); entry[CELL(m, p)] = POISON; wake_in(m, p) } STEP
                unlock_and_wake(p);
                p = 0; goto end
            fi
        }
        :: atomic { /* read_page, ahead */
            if
            :: may_read_ahead(0)
#if PAGES > 1
            :: may_read_ahead(1) -> p = 1
#endif
            fi;
            looks_ahead = 1;
claims:     IF_DEAD; d_step {
                s = word[p].field;
                f = FRAMES;
                u = 0;
                do
                :: u < UNITS && reads[UNIT(m, p, u)] -> u++
                :: else -> break
                od;
                if :: u < UNITS -> claim_frame() :: else fi
            };
            if :: f == FRAMES -> no_frame(p); goto end :: else fi STEP /* or no memory for the read */
            frame[f].page = 0 STEP
            d_step { frame[f].page = p + 1; frame[f].field = s + 1 }; /* frame_table_aim */
            goto takes
        }
        :: atomic { /* a read has come */
            if
            :: reads[UNIT(m, 0, 0)]
#if ERRORS
            :: chances > 0 && reads[UNIT(m, 0, 0)] -> chances--; fails = 1
#endif
#if UNITS > 1
            :: reads[UNIT(m, 0, 1)] -> u = 1
#endif
#if PAGES > 1
            :: reads[UNIT(m, 1, 0)] -> p = 1
#if ERRORS
            :: chances > 0 && reads[UNIT(m, 1, 0)] -> chances--; p = 1; fails = 1
#endif
#if UNITS > 1
            :: reads[UNIT(m, 1, 1)] -> p = 1; u = 1
#endif
#endif
            fi;
            d_step { f = read_frame[UNIT(m, p, u)]; s = reads[UNIT(m, p, u)] - 1; right = s < SLOTS && is_right(s) && !fails; fails = 0 };
            at_work[CELL(m, p)] = 1; goto looks
        }
        od;

again:  atomic { IF_DEAD; goto faults };

        /* ---- a page in memory ---- */
soft:   atomic { IF_DEAD;
            if
            :: word[p].lock || (word[p].state != RESIDENT && word[p].state != WRITING) -> at_work[CELL(m, p)] = 0; goto faults
            :: !word[p].lock && word[p].state == WRITING -> d_step { move_page(p, WRITING, RESIDENT, shared_take_back); word[p].sealed = 0; moved(p) }
            :: !word[p].lock && word[p].state == RESIDENT -> seals = word[p].sealed
            fi;
            if :: seals && entry[CELL(m, p)] == PROTECTED -> goto unseals :: else fi
        };
maps:   atomic { IF_DEAD;
            d_step { map_here(p) } MAPS_PEERS STEP
            d_step { at_work[CELL(m, p)] = 0; seals = 0; p = 0 };
            goto end
        };
unseals: atomic { IF_DEAD; /* shared_unseal: a store's */
            seals = 0;
            if
            :: !word[p].lock && word[p].state == RESIDENT -> word[p].sealed = 0; goto maps
            :: else -> at_work[CELL(m, p)] = 0; goto faults
            fi
        };

        /* ---- a first touch ---- */
touches: SEEN atomic { IF_DEAD;
            if
            :: !word[p].lock && word[p].state == ZERO ->
                d_step { move_page(p, ZERO, READING, claim_fresh); word[p].field = f; word[p].member = m + 1; assert(!word[p].waiters) }
            :: else -> d_step { release_frame(f); f = 0 }; goto faults
            fi
            BETWEEN
            d_step { settle_frame(f); got = 0; at_work[CELL(m, p)] = 1 }
            BETWEEN
            if
            :: makes_zeroes(p)
            :: else -> at_work[CELL(m, p)] = 0; goto in_vain
            fi
            BETWEEN /* fallocate */
#if ERRORS
            if
            :: chances > 0 -> chances--; goto no_memory
            :: true
            fi;
#endif
            d_step { if :: file[p] == HOLE -> assert(zeroes[p]); file[p] = NEW :: else fi }
            BETWEEN
            if
            :: makes_zeroes(p) ->
                d_step { move_page(p, READING, RESIDENT, settle_fresh); word[p].sealed = 0; f = 0; moved(p) }
#ifndef MUTANT_MAPS_IN_VAIN
            :: else -> goto in_vain
#else
            :: else -> drop_late(p); f = 0
#endif
            fi STEP
            if :: waiters -> d_step { waiters = 0; wake(p) } :: else fi;
            goto maps
        };
#if ERRORS
no_memory: atomic { IF_DEAD; /* fallocate has failed */
            if
            :: makes_zeroes(p) ->
                take_lock(p) STEP
                d_step { begin_leave_frame(f) } STEP
                d_step { move_page(p, READING, ZERO, drop_fresh); word[p].field = 0 } STEP
                d_step { punch(p) } STEP
                d_step { end_leave_frame(f) } STEP
                d_step { release_frame(f) } STEP
                d_step { unlock(p); waiters = 0; wake(p); at_work[CELL(m, p)] = 0; f = 0; p = 0 }; /* in any case */
                goto end
            :: else -> goto in_vain
            fi
        };
#endif
in_vain: atomic { IF_DEAD; /* fresh_in_vain */
            drop_late(p) STEP
            d_step { wake_in(m, p); at_work[CELL(m, p)] = 0; f = 0; p = 0 };
            goto end
        };

        /* ---- a claim ---- */
takes:  SEEN atomic { IF_DEAD;
            if
            :: !word[p].lock && word[p].state == SWAPPED && word[p].field == s ->
                d_step { move_page(p, SWAPPED, READING, claim); word[p].field = f; word[p].sealed = 0; word[p].member = m + 1; assert(!word[p].waiters) }
            :: else ->
                d_step { frame[f].field = 0; release_frame(f); f = 0; s = 0; u = 0 };
                if
                :: looks_ahead -> looks_ahead = 0; p = 0; goto end
                :: else -> goto faults
                fi
            fi
            BETWEEN
            d_step {
                settle_frame(f);
                if
                :: got -> reads[UNIT(m, p, u)] = s + 1; read_frame[UNIT(m, p, u)] = f; ahead[UNIT(m, p, u)] = looks_ahead
                :: else -> reads[UNIT(m, p, u)] = STALE /* broken off already */
                fi;
                got = 0; f = 0; s = 0; u = 0; p = 0; looks_ahead = 0
            };
            goto end
        };

        /* ---- the end of a read ---- */
looks:  atomic { IF_DEAD;
            if
            :: !lock_read(p) -> goto vain
            :: lock_read(p) && right -> copy_new[CELL(m, p)] = (data[s] == p + 1)
            :: lock_read(p) && !right ->
                take_lock(p) STEP
                lose(p) STEP
                unlock_and_wake(p) STEP
                d_step { end_leave_slot(s) };
                goto read_ends
#if ERRORS
            :: lock_read(p) && right && chances > 0 -> /* no memory: fill fails */
                chances--;
                take_lock(p) STEP
                d_step { forget_read(p); begin_leave_frame(f) } STEP
                d_step { move_page(p, READING, SWAPPED, take_back); word[p].field = s; mark(p) } STEP
                d_step { punch(p) } STEP
                d_step { end_leave_frame(f) } STEP
                d_step { release_frame(f) } STEP
                unlock_and_wake(p);
                goto read_ends
#endif
            fi
            BETWEEN /* shared_copy_here: COPY makes a page only where there is none */
            d_step {
#ifndef MUTANT_COPY_OVERWRITES
                if :: file[p] == HOLE -> file[p] = (copy_new[CELL(m, p)] -> NEW : OLD) :: else fi;
#else
                file[p] = (copy_new[CELL(m, p)] -> NEW : OLD);
#endif
                copy_new[CELL(m, p)] = 0;
                assert(file[p] == NEW);
                if :: entry[CELL(m, p)] == ABSENT -> entry[CELL(m, p)] = PROTECTED :: else fi
            }
            BETWEEN
            if
            :: lock_read(p) ->
                if
                :: seals = 1
                :: seals = 0
#if READ_AHEAD
                :: ahead[UNIT(m, p, u)] -> seals = 1; s = SLOTS /* a marker: its soft fault asks for the next window */
#endif
                fi;
                d_step { forget_read(p); move_page(p, READING, RESIDENT, settle); word[p].sealed = seals; moved(p) };
                if
                :: !seals -> goto opens
                :: else
                fi;
                if
                :: s == SLOTS -> entry[CELL(m, p)] = ABSENT
                :: else
                fi;
                goto peers
            :: else ->
vain:           IF_DEAD; d_step { forget_read(p);
#ifndef MUTANT_IN_VAIN_WAKES_NOBODY
                    wake_in(m, p) /* end_in_vain: they look again */
#endif
                } STEP
                drop_late(p) STEP
                s = SLOTS;
                goto read_ends
            fi
        };
opens:  atomic { IF_DEAD; /* the protection off */
            d_step { map_here(p) };
peers:      IF_DEAD MAPS_PEERS POINT
            /* whose fault began the read is woken in any case */
read_ends: IF_DEAD; d_step {
                if
                :: waiters -> waiters = 0; wake(p)
                :: !waiters && s < SLOTS -> wake_in(m, p)
                :: else
                fi;
                at_work[CELL(m, p)] = 0; f = 0; s = 0; right = 0; seals = 0; p = 0
            };
            goto end
        };

        /* ---- in the hand of who seems to be stopped ---- */
ends_leave: atomic { IF_DEAD; /* shared_break_leave: the look at the proof, and at what the word says, and the order */
            if
            :: may_end_leave(p) -> f = word[p].member; s = word[p].field
#ifndef MUTANT_LATE_PUNCH
                ; taken_back[CELL(f - 1, p)] = 1
#endif
            :: else -> at_work[CELL(m, p)] = 0; goto faults
            fi
            BETWEEN
#ifndef MUTANT_UNSETTLED_SLOT
            d_step { /* what was seen of the slot is of when the word was still that */
                if
                :: s != NO_SLOT && !word[p].lock && word[p].state == LEAVING && word[p].member == f && word[p].field == s -> settle_slot(s, f)
                :: else
                fi
            }
#else
            skip
#endif
            BETWEEN
            if
            :: !word[p].lock && word[p].state == LEAVING && word[p].member == f && word[p].field == s ->
                if
                :: word[p].sealed -> end_discard(p)
                :: else ->
                    d_step {
                        if
                        :: s == NO_SLOT -> move_page(p, LEAVING, ZERO, shared_break_leave); word[p].field = 0
                        :: s != NO_SLOT -> move_page(p, LEAVING, SWAPPED, shared_break_leave); mark(p)
                        fi;
                        moved(p)
                    } STEP
                    if :: waiters -> d_step { waiters = 0; wake(p) } :: else fi
                fi
            :: else
            fi STEP
            d_step { at_work[CELL(m, p)] = 0; f = 0; s = 0 };
            goto again
        };
shows:  atomic { IF_DEAD;
            if
            :: file[p] != HOLE && entry[CELL(m, p)] == ABSENT ->
                d_step { assert(file[p] == NEW); entry[CELL(m, p)] = PROTECTED; wake_in(m, p); p = 0 };
                goto end
            :: else -> goto faults
            fi
        };
        GONE({ p = 0; f = 0; s = 0; u = 0; i = 0; k = 0; waiters = 0; got = 0; looks_ahead = 0; right = 0; fails = 0; seals = 0 }) /* unreached: without a death */
}

#include "shared_evict.pml"
