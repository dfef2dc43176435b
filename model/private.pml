/*
 * private.pml - the protocol of a private page: csrc/README.md, "Page states", "Swap cache states", "A fault meets", "An eviction", "Fork". How to run
 * and read it: docs/model.md.
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
#define FRAMES (1 + FORK) /* the limit, of all processes */
#endif
#ifndef SLOTS
#define SLOTS 2 /* of each process's area */
#endif
#ifndef ERRORS
#define ERRORS 0 /* so many, of reads and writes */
#endif
#ifndef DISCARDS
#define DISCARDS 0
#endif
#ifndef VALUES
#define VALUES 1 /* pages that are all zeroes, or one value throughout, leave without a slot */
#endif
#ifndef AHEAD
#define AHEAD 1 /* read-ahead */
#endif
#ifndef FORK
#define FORK 0 /* the process (0) forks once, at any time; the child is process 1 */
#endif
#ifndef CHILD_THREADS
#define CHILD_THREADS 1
#endif
#ifndef CRASH
#define CRASH 0 /* after the fork: 1: the child may die; 2: either, or both */
#endif

/* README, "Page states"; "Swap cache states" */
mtype = { ZERO, RESIDENT, SWAPPED, POISONED, FILLED };
mtype = { NONE, READING, CLEAN, WRITING, DIRTY, LENT };

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

/*
 * Each process has words of its own: pages are numbered through all processes. Words of slots: those of the parent's area, as the parent has them; as the
 * child has them ("inherited"); those of the child's area. Slots on the disk: the parent's, the child's.
 */
#if FORK
#define SIDES 2
#define WORDS (3 * SLOTS)
#define disk(s) ((s) < SLOTS -> (s) : (s) - SLOTS)
#define inherited(s) ((s) >= SLOTS && (s) < 2 * SLOTS)
#define FIRST_SLOT(m) (2 * SLOTS * (m))
#define is_open(m) (alive[m] && !((m) == 0 && closed)) /* the gate */
#define is_alive(m) (alive[m])
/* The end of a process: all its threads forget what they were at, in one step, so that its death is not told apart by that. */
#define IN_TURN provided (turn == 0 || turn == _pid)
#define MORTAL {
#define UNTIL_DEATH(m, forget) } unless { atomic { dead[m] -> d_step { forget; turn = (_pid == last_pid[m] -> 0 : _pid + 1) } } }
#else
#define SIDES 1
#define WORDS SLOTS
#define disk(s) (s)
#define FIRST_SLOT(m) 0
#define is_open(m) true
#define is_alive(m) true
#define IN_TURN
#define MORTAL
#define UNTIL_DEATH(m, forget)
#endif
#define DISK (SIDES * SLOTS)
#define END_SLOT(m) (FIRST_SLOT(m) + SLOTS)
#define THREAD(m, t) ((m) * THREADS + (t))

page_word page[SIDES * PAGES];
slot_word slot[WORDS];

/* ---- contents: of which pages a copy has the newest, a bit each ---- */

#define ABSENT 0
#define PROTECTED 1
#define WRITABLE 2
byte entry[SIDES * PAGES] = ABSENT;
bit newest[SIDES * PAGES]; /* what is mapped is the newest */
byte cached[WORDS];        /* contents of the frame in the swap cache */
byte sum[WORDS];           /* of what the noted hash is */
byte data[DISK];           /* contents of the slot, on the disk */
byte value[SIDES * PAGES]; /* the newest contents: 0 zeroes, 1 one value throughout, 2 anything */
bit lost[SIDES * PAGES];
byte limit[SIDES];
byte used_frames[SIDES];
byte chances = ERRORS;
byte discards = DISCARDS;
bit calm;
bit freed[SIDES * THREADS];   /* frames_freed has been signalled since this thread last looked */
byte asleep[SIDES * THREADS]; /* page + 1, in the parking lot; 0: not */
byte starved[SIDES];          /* threads that wait for a frame */
byte inside[SIDES];           /* of the gate, and between two steps */

#if FORK
bit closed;          /* the parent's gate */
bit alive[SIDES];
bit born;
bit dead[SIDES];
bit buried;          /* the child */
bit held[SLOTS];     /* holders: the child uses this slot of the parent's */
byte lending[SLOTS]; /* holders_lend: 1: has seen the bit; 2: has set LENT */
bit owed;            /* holders_release of the child: the bit is cleared, `released` not counted yet */
byte turn;           /* a thread that dies; 0: none */
byte first_pid[SIDES];
byte last_pid[SIDES];
bit due;             /* `released` has been counted since the last sweep */
#endif

#if VALUES
#define some_value() if :: value[p] = 0 :: value[p] = 1 :: value[p] = 2 fi
#define some_fill() if :: fills = 0 :: fills = 1 fi
#else
#define some_value() value[p] = 2
#define some_fill() skip
#endif

#include "private_words.pml"
#include "private_in.pml"
#include "private_out.pml"
#if FORK
#include "private_fork.pml"
#endif

/* ---- at rest: nobody waits, nothing is leaked ---- */

inline check_rest(m) {
    assert(starved[m] == 0 && inside[m] == 0);
    do
    :: i < THREADS -> assert(asleep[THREAD(m, i)] == 0); i++
    :: else -> i = 0; break
    od;
    uses = 0; frames = 0;
    i = m * PAGES;
    do
    :: i < (m + 1) * PAGES -> assert(!page[i].lock); uses = uses + (page[i].entry > 0); frames = frames + (entry[i] != ABSENT); i++
    :: else -> break
    od;
    i = 2 * SLOTS * m - (m == 1 -> SLOTS : 0);
    do
    :: i < END_SLOT(m) ->
        assert(slot[i].pins == 0 && (slot[i].state == NONE || slot[i].state == CLEAN || slot[i].state == LENT));
        assert(slot[i].taken == (slot[i].count > 0 || slot[i].bad || slot[i].state == LENT));
        uses = uses - slot[i].count; /* I5 */
        frames = frames + (slot[i].state == CLEAN);
        i++
    :: else -> i = 0; break
    od;
    assert(uses == 0 && frames == used_frames[m]) /* I1 */
}

proctype rest() {
    byte i, uses, frames;
    atomic { timeout ->
#if FORK
        if :: alive[0] -> check_rest(0) :: else fi;
        if :: alive[1] -> check_rest(1) :: else fi;
        check_holders()
#else
        check_rest(0)
#endif
    }
}

inline run_side(m, threads) {
    k = 0;
    do
    :: k < threads -> run thread(m, k); k++
    :: else -> break
    od;
    k = FIRST_SLOT(m);
    do
    :: k < END_SLOT(m) -> run writer(m, k); k++
    :: else -> k = 0; break
    od;
#if AHEAD
    run ahead(m);
#endif
    run reclaimer(m);
#if DISCARDS
    run discard(m)
#else
    skip
#endif
}

init {
    byte k;
    atomic {
        limit[0] = FRAMES;
        run_side(0, THREADS);
#if FORK
        alive[0] = 1;
        run_parent();
        run_side(1, CHILD_THREADS);
        run_child();
#endif
        run rest()
    }
    calm = 1
}
