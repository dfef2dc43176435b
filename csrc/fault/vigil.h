/*
 * vigil.h - keeps the processor awake on which one thread sleeps that waits, again and again, for a single page.
 *
 * Its processor would halt meanwhile, and take 10 to 20 us to run it again when the page is there (base/awake.h). So a thread of the
 * idle class (SCHED_IDLE: it runs only where nothing else of its cgroup would) turns round on that processor for as long as such faults follow each other.
 *
 * Owns: that thread, and when it is worth its while. Only for the fault thread's regions: who serves his own faults looks around himself.
 */
#ifndef USWAP_FAULT_VIGIL_H
#define USWAP_FAULT_VIGIL_H

#include "base/lock.h"

#include <pthread.h>

typedef struct {
    pthread_t thread;
    bool started;
    _Atomic uint32_t stop;
    _Atomic uint32_t asleep;   /* or about to be: who calls it signals */
    _Atomic uint64_t until_ns; /* it turns round until then */
    _Atomic uint32_t tid;      /* whose processor it keeps */
    event called;
    uint32_t last_tid; /* f: of the last fault that waited for a read of its own */
    uint32_t in_a_row; /* f: such faults of that thread, one soon after the other */
    uint64_t last_ns;  /* f */
} vigil;               /* f: fault thread only */

/* Does without the thread where it is of no use or refused. */
void vigil_start(vigil *v);
void vigil_stop(vigil *v);

/* A fault of this thread waits for a page that nobody had asked for before. Context: the fault thread. */
void vigil_note(vigil *v, uint32_t tid, uint64_t now_ns);

#endif
