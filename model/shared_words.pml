/* shared_words.pml - the steps of page words, use words, page-table entries and files (shared_word.c, frame_table.c, slot_table.c). */

/* ---- moves ---- */

#define move_page(p, from, to, by) assert(word[p].state == from); word[p].state = to
#define move_frame(f, from, to, by) assert(frame[f].kind == from); frame[f].kind = to
#define move_slot(s, from, to, by) assert(slot[s].kind == from); slot[s].kind = to
/* What is done to the use word of who is dead, whatever it says. */
#define seize_frame(f, to, by) frame[f].kind = to
#define seize_slot(s, to, by) slot[s].kind = to

inline age(p) { /* all copies of the page's contents but the one in the file */
    i = 0;
    do
    :: i < SLOTS ->
        if :: data[i] == p + 1 -> data[i] = 0 :: else fi;
        if :: sum[i] == p + 1 -> sum[i] = 0 :: else fi;
        i++
    :: else -> break
    od;
    i = 0;
    do
    :: i < MEMBERS ->
        out_new[CELL(i, p)] = 0;
        copy_new[CELL(i, p)] = 0;
        i++
    :: else -> break
    od;
    i = 0
}

inline punch(p) { /* unmaps the page everywhere */
    file[p] = HOLE;
    if :: discarded[p] -> discarded[p] = 0; zeroes[p] = 1; age(p) :: else fi;
    i = 0;
    do
    :: i < MEMBERS ->
        if :: entry[CELL(i, p)] != POISON -> entry[CELL(i, p)] = ABSENT :: else fi;
        i++
    :: else -> break
    od;
    i = 0
}

inline wake_in(k, p) {
    awake[k] = awake[k] + asleep[CELL(k, p)];
    asleep[CELL(k, p)] = 0;
#if LIVE
    if :: k == 0 && p == 0 -> witness_sleeps = 0 :: else fi;
#endif
    message[CELL(k, p)] = 0
}

#define is_of(s, p) (slot[s].kind == PAGE && slot[s].page == p + 1)

/* ---- what holds whenever a page is in nobody's hand, and whenever a frame comes free ---- */

#define in_frame(p) (word[p].state == RESIDENT || word[p].state == WRITING || word[p].state == READING)

/* The page's word names the slot, or the frame that it names keeps it. */
#define has_slot(p, s) (((word[p].state == SWAPPED || word[p].state == LEAVING) && word[p].field == s) || (in_frame(p) && frame[word[p].field].field == s + 1))

#define frame_is_right(p) (word[p].lock || word[p].state != RESIDENT || (frame[word[p].field].page == p + 1 && (frame[word[p].field].kind == PAGE || frame[word[p].field].kind == GOING)))
#define slot_is_right(p) (word[p].lock || word[p].state != SWAPPED || is_of(word[p].field, p))
#define is_free(p) (!word[p].lock && word[p].state != READING && word[p].state != WRITING && word[p].state != LEAVING)

/* Announced by anybody. */
#if MEMBERS == 1
#define announced(p) at_work[CELL(0, p)]
#elif MEMBERS == 2
#define announced(p) (at_work[CELL(0, p)] || at_work[CELL(1, p)])
#else
#define announced(p) (at_work[CELL(0, p)] || at_work[CELL(1, p)] || at_work[CELL(2, p)])
#endif

/* What is in the file of a page that came late, or is about to be a page's, is not counted as long as its member has not looked. */
#define present(p) (file[p] != HOLE && (word[p].state == RESIDENT || word[p].state == WRITING || word[p].state == LEAVING || discarded[p]))
#if FRAMES == 1
#define used_frames (frame[0].kind != FREE)
#else
#define used_frames ((frame[0].kind != FREE) + (frame[1].kind != FREE))
#endif
#if PAGES > 1
#define one_frame_one_page (!in_frame(0) || !in_frame(1) || word[0].field != word[1].field)
#define in_slot(p) (word[p].state == SWAPPED || (word[p].state == LEAVING && word[p].field != NO_SLOT))
#define one_slot_one_page (!in_slot(0) || !in_slot(1) || word[0].field != word[1].field)
#define present_frames (present(0) + present(1))
#else
#define one_frame_one_page true
#define one_slot_one_page true
#define present_frames present(0)
#endif

inline wake(p) { /* shared_wake */
    i = 0;
    do
    :: i < MEMBERS ->
        if :: !dead[i] -> wake_in(i, p) :: else fi;
        i++
    :: else -> break
    od;
    i = 0
}

inline check_word(p) {
    assert(frame_is_right(p)); /* I16 */
    assert(slot_is_right(p)); /* I17 */
    assert(one_frame_one_page);
    assert(one_slot_one_page)
}

/* shared_unlock: waiters: somebody is to be woken. */
inline unlock(p) {
    assert(word[p].lock && word[p].member == m + 1); /* I15 */
    waiters = word[p].waiters;
    word[p].lock = 0;
    if
    :: word[p].state == LEAVING -> waiters = 0 /* it is in our hand still: who ends it wakes */
    :: else -> word[p].waiters = 0; word[p].member = 0
    fi;
    check_word(p)
}

/* shared_move: one compare-and-swap of a word that nobody has locked; what follows move_page. */
inline moved(p) {
    waiters = word[p].waiters;
    word[p].waiters = 0;
    word[p].member = 0;
    check_word(p)
}

/* shared_try_lock. got: locked. */
inline try_lock(p) {
    if
    :: !is_free(p) -> got = 0
    :: is_free(p) -> word[p].lock = 1; word[p].member = m + 1; got = 1
    fi
}

/* FREE => CLAIMED by m; f == FRAMES: there is none. */
inline claim_frame() {
    f = 0;
    do
    :: f < FRAMES && frame[f].kind != FREE -> f++
    :: else -> break
    od;
    if
    :: f < FRAMES -> move_frame(f, FREE, CLAIMED, frame_table_claim); frame[f].member = m + 1; frame[f].field = 0
    :: else
    fi
}

/* got: it was ours still; else somebody has broken off what it was for. */
inline settle_frame(f) {
    if
    :: frame[f].kind == CLAIMED && frame[f].member == m + 1 && frame[f].page == p + 1 ->
        move_frame(f, CLAIMED, PAGE, frame_table_settle); frame[f].member = 0; got = 1
    :: else -> got = 0
    fi
}

/* Of a page that its member has made READING, and m has locked: that one may not have settled the frame yet. */
inline take_frame(f, reader) {
    if
    :: frame[f].kind == PAGE -> move_frame(f, PAGE, LEAVING, frame_table_take)
    :: frame[f].kind == GOING -> move_frame(f, GOING, LEAVING, frame_table_take) /* unreached: a frame comes again as another page's in no model */
    :: else -> assert(frame[f].member == reader); move_frame(f, CLAIMED, LEAVING, frame_table_take) /* I16 */
    fi;
    frame[f].member = m + 1
}

inline begin_leave_frame(f) {
    if
    :: frame[f].kind == PAGE -> move_frame(f, PAGE, LEAVING, frame_table_begin_leave)
    :: else -> move_frame(f, GOING, LEAVING, frame_table_begin_leave)
    fi;
    frame[f].member = m + 1
}

inline end_leave_frame(f) {
    assert(frame[f].member == m + 1);
    move_frame(f, LEAVING, CLAIMED, frame_table_end_leave);
    frame[f].field = 0
}

inline release_frame(f) {
    assert(frame[f].member == m + 1);
    move_frame(f, CLAIMED, FREE, frame_table_release);
    frame[f].member = 0;
    assert(present_frames <= used_frames) /* the limit */
}

/* Its use word has another clock than it ever had: who has seen the slot before finds that. */
inline renew(s) {
    i = 0;
    do
    :: i < LOOKERS -> if :: kept_of[i] == s + 1 -> kept_of[i] = 0 :: else fi; i++
    :: else -> break
    od;
    i = 0
}

/* CLAIMED by the member that is letting the page go, or by one that is stopped. */
inline settle_slot(s, by) {
    if
    :: slot[s].kind == CLAIMED && slot[s].member == by -> move_slot(s, CLAIMED, PAGE, slot_table_settle); slot[s].member = 0; renew(s)
    :: else
    fi
}

inline begin_leave_slot(s) {
    move_slot(s, PAGE, LEAVING, slot_table_begin_leave);
    slot[s].member = m + 1
}

inline end_leave_slot(s) {
    assert(slot[s].member == m + 1);
    move_slot(s, LEAVING, FREE, slot_table_end_leave);
    slot[s].member = 0;
    data[s] = 0; /* what is in a free slot is nobody's */
    sum[s] = 0
}

/* ---- death ---- */

inline die(d) { /* what only it knew is gone, but for what the device has */
    dead[d] = 1;
    awake[d] = 0;
    i = 0;
    do
    :: i < PAGES ->
        entry[CELL(d, i)] = ABSENT; asleep[CELL(d, i)] = 0; message[CELL(d, i)] = 0; parked[CELL(d, i)] = 0;
        k = 0;
        do
        :: k < UNITS -> reads[UNIT(d, i, k)] = 0; read_frame[UNIT(d, i, k)] = 0; ahead[UNIT(d, i, k)] = 0; k++
        :: else -> k = 0; break
        od;
        if :: !writes[CELL(d, i)] -> out_new[CELL(d, i)] = 0 :: else fi;
        copy_new[CELL(d, i)] = 0;
        i++
    :: else -> break
    od;
    i = 0
}

/* The end of a thread of who is dead: it does nothing more, and knows nothing any more. */
#if CRASH
#define IF_DEAD if :: dead[m] -> goto gone :: else fi
#define GONE(forget) gone: atomic { d_step { assert(dead[m]); forget }; goto end }
#else
#define IF_DEAD skip
#define GONE(forget) skip /* unreached: without a death */
#endif
