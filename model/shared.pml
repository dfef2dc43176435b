/*
 * shared.pml - the protocol of a shared page: csrc/README.md, "Processes of one pool". How to run and read it: docs/model.md.
 *
 * States and moves have the names of csrc/README.md; tests/unit/test_model_names.py compares the lists. A step is one change of one word, of
 * one process's page-table entry, or of a file or slot, as in csrc/shared: between any two of them anybody may go on, and a member may die.
 *
 * Contents are not modelled, but whether a copy is the newest one: a store makes all copies old but the page that it went to.
 */
#ifndef PAGES
#define PAGES 1
#endif
#ifndef THREADS
#define THREADS 3 /* of the program, in each member */
#endif
#ifndef LAST_THREADS
#define LAST_THREADS THREADS /* in the last member, the one that may die */
#endif
#ifndef MEMBERS
#define MEMBERS 2
#endif
#ifndef FRAMES
#define FRAMES 1
#endif
#ifndef SLOTS
#define SLOTS 2
#endif
#ifndef UNITS
#define UNITS 1 /* reads of one page that a member may have under way: more than one if some were broken off */
#endif
#ifndef BREAKS
#define BREAKS 1 /* reads of members that may only be slow are broken off, too */
#endif
#ifndef ZEROING
#define ZEROING 1 /* a store may make a page all zeroes */
#endif
#ifndef FINE
#define FINE 0 /* others go on at each step of a member that may die, under its lock, too */
#endif
#ifndef APART
#define APART 0 /* others go on between the look at a word and the claim of the page */
#endif
#ifndef STOPS
#define STOPS 0 /* the last member may be stopped for good, at any step: dead, but nobody mends */
#endif
#if STOPS
#define CRASH 1
#endif
#ifndef CRASH
#define CRASH 0 /* the last member may die, at any step */
#endif
#ifndef READ_AHEAD
#define READ_AHEAD 0
#endif
#ifndef DISCARDS
#define DISCARDS 0 /* so many, by the last member */
#endif
#ifndef MAP_FOR_PEERS
#define MAP_FOR_PEERS 0
#endif
#ifndef ERRORS
#define ERRORS 0 /* so many: of reads, writes, and memory */
#endif
#ifndef LIVE
#define LIVE 0 /* with a thread that is followed, for "every fault ends" */
#endif

#define CELLS (MEMBERS * PAGES) /* one for each member and page */
#define CELL(m, p) ((m) * PAGES + (p))
#define UNIT(m, p, u) (CELL(m, p) * UNITS + (u))
#if STOPS
#define MENDS 0
#else
#define MENDS CRASH
#endif


/* Words: README, "A shared page". Uses: README, "Order of steps". */
mtype = { ZERO, RESIDENT, WRITING, LEAVING, SWAPPED, READING, POISONED };
mtype = { FREE, RETIRED, CLAIMED, PAGE, GOING }; /* and LEAVING, which spin knows from the line above */
/* What an eviction is to do (out_kind). */
mtype = { GIVEN_UP, CHOSEN, EMPTY, CLEAN, DIRTY, WRITTEN, SEALED };

typedef word_of_page {
    mtype state = ZERO;
    bit lock;
    bit waiters;
    bit sealed;
    byte member; /* + 1; 0: none */
    byte field   /* frame, or slot (SWAPPED, LEAVING: NO_SLOT: all zeroes) */
}
typedef use_of_frame {
    mtype kind = FREE;
    byte member; /* + 1 */
    byte field;  /* slot + 1 */
    byte page    /* + 1 */
}
typedef use_of_slot {
    mtype kind = FREE;
    byte member; /* + 1 */
    byte page    /* + 1 */
}

#define NO_SLOT SLOTS

word_of_page word[PAGES];
use_of_frame frame[FRAMES];
use_of_slot slot[SLOTS];

/* ---- contents: where the newest ones of a page are ---- */

#define HOLE 0
#define OLD 1
#define NEW 2
byte file[PAGES] = HOLE;
bit zeroes[PAGES] = 1; /* the newest contents of the page are zeroes */
bit lost[PAGES];       /* a read has failed: POISONED is right */
byte data[SLOTS];      /* page + 1: the slot has the newest contents of that page; 0: something else */
byte sum[SLOTS];       /* the same of the hash that is noted for the slot */

/* ---- page-table entries and threads of the program ---- */

#define ABSENT 0
#define PROTECTED 1
#define WRITABLE 2
#define POISON 3
byte entry[CELLS] = ABSENT;
byte asleep[CELLS];   /* threads that wait in the kernel */
bit message[CELLS];   /* one of them has not been heard of */
bit parked[CELLS];    /* its fault found no frame */
byte awake[MEMBERS];

/* ---- I/O of a member: to and from its own bounce frames ---- */

byte reads[CELLS * UNITS];     /* slot + 1 that a read of this page is under way from, or has come from */
byte read_frame[CELLS * UNITS];
bit ahead[CELLS * UNITS];      /* the read is nobody's fault: a marker may stay unmapped */
byte writes[CELLS];    /* slot + 1 that is being written; goes on after the member's death */
bit out_new[CELLS];    /* the copy that an eviction has made is the newest */

bit copy_new[CELLS];   /* what a read has brought, and is about to be copied into the file, is the newest */

bit at_work[CELLS];    /* announced: the share thread of the member is at the page (shared_at_work.c) */
#if DISCARDS
#define LOOKERS (CELLS + 1) /* and who discards */
#else
#define LOOKERS CELLS
#endif
byte kept_of[LOOKERS]; /* slot + 1 that an eviction has seen kept, and whose use word has not been made anew since: its clock tells */
bit ordered[CELLS];    /* the member is to punch the page, or to see to it (shared_punch.c) */
bit taken_back[CELLS]; /* somebody has taken its order back */
bit inside[CELLS];     /* it is within that call */

bit discarded[PAGES];  /* the contents go with the next punch */
#if DISCARDS
bit leaving[MEMBERS];  /* leave_lock: within the member one evicts or discards at a time */
byte named[MEMBERS];   /* slot + 1: its order names it, of a page that it discards */
bit throwing[PAGES];   /* a discard of the page has not ended: its old contents may be seen */
#define alone(m) (!leaving[m])
#define enter(m) leaving[m] = 1
#define leave(m) leaving[m] = 0
#define is_old_right(p) throwing[p]
#else
#define alone(m) true
#define enter(m) skip
#define leave(m) skip
#define is_old_right(p) false
#endif

bit dead[MEMBERS];
bit mended[MEMBERS];
bit calm; /* nothing new is begun: what is under way ends */
byte chances = ERRORS;
byte discards = DISCARDS;
#if LIVE
bit witness_waits; /* in a fault */
bit witness_sleeps;
#endif

#include "shared_words.pml"

#if FRAMES == 1
#define frame_free (frame[0].kind == FREE)
#else
#define frame_free (frame[0].kind == FREE || frame[1].kind == FREE)
#endif
#if UNITS == 1
#define unit_free(p) (reads[UNIT(m, p, 0)] == 0)
#else
#define unit_free(p) (reads[UNIT(m, p, 0)] == 0 || reads[UNIT(m, p, 1)] == 0)
#endif
#define can_retry(p) ((frame_free && unit_free(p)) || (word[p].state != ZERO && word[p].state != SWAPPED))
#if PAGES > 1
#define frames_wanted ((parked[CELL(m, 0)] && !can_retry(0)) || (parked[CELL(m, 1)] && !can_retry(1)))
#define some_page() if :: p = 0 :: p = 1 fi
#else
#define frames_wanted (parked[CELL(m, 0)] && !can_retry(0))
#define some_page() p = 0
#endif

/* ---- threads of the program ---- */

/* The threads of a member do not differ, so they are counted. */
proctype program(byte m) {
    byte p, i;
end:    do
        :: atomic {
            !calm && awake[m] > 0 -> some_page();
            if
            :: entry[CELL(m, p)] == PROTECTED || entry[CELL(m, p)] == WRITABLE ->
                assert(file[p] == NEW || is_old_right(p)) /* a load: no store lost, nothing stale read */
            :: entry[CELL(m, p)] == WRITABLE -> /* a store; it may leave the page all zeroes */
                d_step { assert(file[p] != HOLE); age(p); file[p] = NEW };
#if ZEROING
                if :: zeroes[p] = 0 :: zeroes[p] = 1 fi
#else
                zeroes[p] = 0
#endif
            :: entry[CELL(m, p)] == ABSENT || entry[CELL(m, p)] == PROTECTED -> /* a fault */
                d_step { awake[m]--; asleep[CELL(m, p)]++; message[CELL(m, p)] = 1 }
            :: entry[CELL(m, p)] == POISON -> assert(lost[p]) /* SIGBUS */
            fi;
            p = 0
        }
        od
}

#include "shared_member.pml"
#include "shared_death.pml"

/* ---- the thread that is followed, in member 0; it counts beside the others ---- */

#if LIVE
proctype witness() {
    byte i;
end: do
    :: atomic { !calm -> witness_waits = 1 };
        if
        :: goto loads
        :: goto stores
        fi;
loads:  if
        :: atomic { entry[CELL(0, 0)] == PROTECTED || entry[CELL(0, 0)] == WRITABLE || entry[CELL(0, 0)] == POISON -> goto done }
        :: d_step { entry[CELL(0, 0)] == ABSENT -> witness_sleeps = 1; message[CELL(0, 0)] = 1 }
        fi;
        !witness_sleeps;
        goto loads;
stores: if
        :: d_step { entry[CELL(0, 0)] == WRITABLE -> age(0); file[0] = NEW; zeroes[0] = 0 }; goto done
        :: entry[CELL(0, 0)] == POISON; goto done
        :: d_step { entry[CELL(0, 0)] == PROTECTED || entry[CELL(0, 0)] == ABSENT -> witness_sleeps = 1; message[CELL(0, 0)] = 1 }
        fi;
        !witness_sleeps;
        goto stores;
done:   witness_waits = 0
    od
}
#endif

/* ---- at rest ---- */

#define named_frame(f) ((word[0].state == RESIDENT && word[0].field == f) || (word[PAGES - 1].state == RESIDENT && word[PAGES - 1].field == f))
#define names_slot(p, s) ((word[p].state == SWAPPED && word[p].field == s) || (word[p].state == RESIDENT && frame[word[p].field].field == s + 1))

inline check_rest() {
    i = 0;
    do
    :: i < CELLS -> assert(dead[i / PAGES] || (asleep[i] == 0 && !parked[i])); /* every fault has ended */
        i++
    :: else -> break
    od;
    i = 0;
    do
    :: i < PAGES ->
        assert(!word[i].lock && word[i].state != READING && word[i].state != WRITING && word[i].state != LEAVING);
        assert(!announced(i));
        assert(word[i].state != RESIDENT || file[i] == NEW);
        assert(word[i].state != SWAPPED || data[word[i].field] == i + 1);
#ifndef LEFTOVERS
        assert(word[i].state == RESIDENT || file[i] == HOLE);
#else
        assert(word[i].state == RESIDENT || file[i] == HOLE || (word[i].state == SWAPPED && file[i] == NEW));
#endif
        i++
    :: else -> break
    od;
    i = 0;
    do
    :: i < FRAMES -> assert((frame[i].kind == PAGE && named_frame(i)) || (frame[i].kind == FREE && !named_frame(i))); i++ /* I16; no frame lost */
    :: else -> break
    od;
    i = 0;
    do
    :: i < SLOTS -> /* I17; no slot lost */
        assert(slot[i].kind == RETIRED || slot[i].kind == FREE ||
               (slot[i].kind == PAGE && names_slot(slot[i].page - 1, i)));
        i++
    :: else -> break
    od
}

#if STOPS
/*
 * What the last member was at when it was stopped. All others have come to rest, but for threads that wait for it: for a page that it has locked
 * (loads see it as long as the file has it), or for a frame. Who is stopped within a call ends that before.
 */
#define waits_for_stopped(p) ( \
    (word[p].lock && (file[p] == HOLE || word[p].state == POISONED || entry[CELL(0, p)] != ABSENT)) || \
    (parked[CELL(0, p)] && !frame_free))
inline check_rest_of_others() {
    i = 0;
    do
    :: i < PAGES ->
        assert(!asleep[CELL(0, i)] || waits_for_stopped(i));
        assert(word[i].state != RESIDENT || file[i] == NEW);
        assert(word[i].state != SWAPPED || data[word[i].field] == i + 1);
        i++
    :: else -> break
    od
}
#endif

proctype rest() {
    byte i;
    atomic { timeout ->
#if STOPS
        if
        :: dead[MEMBERS - 1] -> check_rest_of_others()
        :: else -> check_rest()
        fi
#else
        check_rest()
#endif
    }
}

#if PAGES > 1
#define waits(m) (asleep[CELL(m, 0)] || asleep[CELL(m, 1)])
#else
#define waits(m) asleep[CELL(m, 0)]
#endif
#if LIVE
#define at_rest true
#else
#define at_rest (THREADS == 0 && dead[MEMBERS - 1])
#endif

init {
    byte m, p;
    atomic {
        m = 0;
        do
        :: m < MEMBERS ->
            awake[m] = (m == MEMBERS - 1 -> LAST_THREADS : THREADS) - (LIVE && m == 0);
            run program(m);
            run share(m);
            p = 0;
            do
            :: p < PAGES -> run evict(m, p); p++
            :: p == PAGES -> break
            od;
            m++
        :: else -> break
        od;
#if DISCARDS
        run discard(MEMBERS - 1);
#endif
#if CRASH
        run death(MEMBERS - 1);
#endif
#if MENDS
        run repair(0, MEMBERS - 1);
#if MEMBERS > 2
        run repair(1, MEMBERS - 1);
#endif
#endif
#if LIVE
        run witness();
#else
        run rest();
#endif
        m = 0;
        p = 0
    }
    atomic { waits(0) || waits(MEMBERS - 1) || at_rest -> calm = 1 }
}

#if LIVE
ltl every_fault_ends { [] ((calm && witness_waits) -> <> !witness_waits) }
#endif
