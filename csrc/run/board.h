/*
 * board.h - a page of counters for each process of a program, where the one that watches finds them whatever its end (README, Unmodified programs).
 *
 * Owns: who has which slot. The counters in it are those of the process's pool itself, not a copy.
 */
#ifndef USWAP_RUN_BOARD_H
#define USWAP_RUN_BOARD_H

#include "base/base.h"
#include "base/stats.h"

#include <sys/types.h>

#define BOARD_SLOTS 1024

typedef enum {
    SLOT_FREE = 0,
    SLOT_TAKEN, /* by a process that fills it in */
    SLOT_LIVE,  /* its process is, or has ended without a word */
} slot_state;

typedef struct {
    _Atomic uint64_t holder; /* slot_state in the lowest byte, above it the pid */
    uint64_t start_time;     /* with the pid: identity */
    uint64_t limit_bytes;
    _Atomic uint64_t forks_refused;
    char name[64];
    pool_counters counters;
} board_slot;

/* What the slots that are free again came to, and the most that all processes had in memory together, if they share a limit (keeper.c looks now and then). */
typedef struct {
    _Atomic uint64_t processes, faults, major_faults, pages_in, pages_out, stall_ns, peak_bytes, forks_refused;
} board_totals;

/* This process becomes one that has a board, and forks: the child goes on with the program, and this one watches it. Or it has joined its ancestor's board. Context: before there
 * is a pool, or any thread. */
void run_board_begin(void);
/* What its process says itself is not said for it. */
void run_board_said(void);

/* A fork of this process has been refused. */
void run_board_note_refused(void);
/* "; 2 forks refused", or "" if it is none. */
const char *run_refused_text(uint64_t forks, char text[48]);

/* Whose slots are without a process: their figures go to the descriptor, and they are free. but: not this one's, which has its own words. */
void run_board_tell(int to, pid_t but);
/* The slot of a process, whether it is there still. Return: NULL: it has none. */
board_slot *run_board_of(pid_t pid);
/* One line on what it came to; how: what its end was, or "". Then it is free. */
void run_board_say(board_slot *slot, int to, const char *how);

/* All processes together have so much in memory now. */
void run_board_note_together(uint64_t bytes);
/* One line on all whose words have been said. */
void run_board_say_together(int to);

#endif
