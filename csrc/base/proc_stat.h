/*
 * proc_stat.h - what the kernel says of a process, or of a thread: /proc/.../stat and /proc/.../status, without stdio and malloc (in the child of a fork what
 * libc has allocated may be swapped out, and nobody is there yet to bring it in).
 */
#ifndef USWAP_BASE_PROC_STAT_H
#define USWAP_BASE_PROC_STAT_H

#include "base/base.h"

typedef struct {
    char text[1024]; /* empty where nothing is said: no such process, or none that may be seen */
} proc_stat;

/* Words of proc(5). */
typedef enum { PROC_STAT_STATE = 3, PROC_STAT_START = 22, PROC_STAT_PROCESSOR = 39 } proc_stat_word;

void proc_stat_of_self(proc_stat *in);
void proc_stat_of_process(proc_stat *in, uint32_t pid);
void proc_stat_of_thread(proc_stat *in, uint32_t tid);

/* Whether that thread is stopped (SIGSTOP, a tracer), so that it is in no system call. *switches: how often it has gone off a processor: if it is stopped twice, with the same number,
 * it was all the time in between. Return: false: it is not, or nothing is said of it (hidepid). */
bool proc_thread_is_stopped(uint32_t pid, uint32_t tid, uint64_t *switches);

/* Return: where the word begins; NULL: there is none. */
const char *proc_stat_find(const proc_stat *in, proc_stat_word word);
/* Return: false: there is no such number. */
bool proc_stat_number(const proc_stat *in, proc_stat_word word, uint64_t *number);

#endif
