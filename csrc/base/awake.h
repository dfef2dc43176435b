/*
 * awake.h - waiting awake: to look around for what will come soon, instead of sleeping until it has come.
 *
 * A processor that has nothing to do halts, and to be woken takes it 10 to 20 us in a virtual machine: a third of what a fast disk takes
 * for a page (K24). Whoever waits awake is spared that. It is bounded, given up as soon as somebody else wants the
 * processor, and only done while it has been worth it of late: of the last waits, so many more were short than long.
 */
#ifndef USWAP_BASE_AWAKE_H
#define USWAP_BASE_AWAKE_H

#include "base/base.h"

/* A disk's latency and what it takes to be woken; longer waits are slept through. */
#define AWAKE_NS UINT64_C(120000)

/* What the waits of one thread (or of one queue) have been like. Zero: nothing is known yet. */
typedef struct {
    uint32_t credit;
    bool off; /* it is not to be */
} awake_record;

/* One wait. */
typedef struct {
    uint64_t begin_ns, now_ns;
} awake_wait;

static inline void cpu_relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Processors that this process may use, by its affinity and its container's quota. Context: not on the fault path; once, before the others are called. */
void awake_init(void);
/* Whether there is more than one: on a single one, who looks around only keeps the others from going on. */
bool awake_is_possible(void);
/* Whether waiting awake has been worth it of late. */
bool awake_pays(const awake_record *record);
/* The same for one of several threads that may wait at once. As soon as more of them wait than half of the processors, awake or not, the
 * processors are wanted by those whose pages are there. Return: whether to wait awake; counts the caller until _leave in any case. */
bool awake_enter(const awake_record *record);
void awake_leave(void);

awake_wait awake_begin(void);
/* Return: whether to look again; else it has taken too long, or others want the processor (the record then says so). */
bool awake_go_on(awake_record *record, awake_wait *wait);
/* A wait, awake or not, has taken so long. */
void awake_note(awake_record *record, uint64_t waited_ns);

#endif
