#define _GNU_SOURCE
#include "fault/signal.h"

#include "base/failpoint.h"
#include "base/lock.h"
#include "fault/fault_inline.h"
#include "fault/poison.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <ucontext.h>

/*
 * Levels. Others may install a handler over ours (faulthandler.enable, signal.signal), remember ours as the one before, and give it back or
 * call it later. Ours is then put over theirs again. If that were the same function with one chain, the two would call each
 * other for ever. So ours is one function a level, each with a chain of its own: over another handler we go with a level that this handler
 * cannot come back to. From a level the chain leads to the handler it was put over, from there perhaps to the level that this one
 * was installed over (under), and so on; no handler is in the chains of two levels. So a chain ends.
 */
#define LEVELS 8
#define SIGNALS 2

typedef void handler(int number, siginfo_t *info, void *machine);

static const struct sigaction default_action = {.sa_handler = SIG_DFL};

static small_lock arm_lock;
/* What a level was put over. A record is rewritten only while no chain leads to it. */
static struct sigaction record[SIGNALS][LEVELS];
static const struct sigaction *_Atomic chained[SIGNALS][LEVELS];
static int under[SIGNALS][LEVELS];          /* the level that was on top then; -1: none; under arm_lock */
static _Atomic int top[SIGNALS] = {-1, -1}; /* the level last seen installed; -1: none ever was */
static _Atomic uint32_t ending;             /* last words were said: nothing is to come between now and the end */

static int index_of(int number) {
    return number == SIGBUS ? 0 : 1;
}

/* ---- whose it is not ---- */

/* As the kernel would have done it: the disposition, its mask and flags. */
static void chain(int level, int number, siginfo_t *info, void *machine) {
    const struct sigaction *next = atomic_load(&chained[index_of(number)][level]);
    bool sent = info->si_code <= 0; /* by a process: it will not come again by itself */
    sigset_t mask, ours;
    if (next->sa_handler == SIG_IGN && sent)
        return;
    if (next->sa_handler == SIG_IGN || next->sa_handler == SIG_DFL) {
        sigaction(number, &default_action, NULL); /* the instruction runs again, and ends the process */
        if (sent)
            raise(number);
        return;
    }
    if (next->sa_flags & (int)SA_RESETHAND)
        atomic_store(&chained[index_of(number)][level], &default_action);
    sigorset(&mask, &((const ucontext_t *)machine)->uc_sigmask, &next->sa_mask);
    if (!(next->sa_flags & SA_NODEFER))
        sigaddset(&mask, number);
    pthread_sigmask(SIG_SETMASK, &mask, &ours);
    if (next->sa_flags & SA_SIGINFO)
        next->sa_sigaction(number, info, machine);
    else
        next->sa_handler(number);
    pthread_sigmask(SIG_SETMASK, &ours, NULL);
}

/* ---- ours ---- */

/* The instruction will run again and meet whoever was there before us: another handler, or the end of the process. */
static void step_aside(int level, int number) {
    atomic_store(&ending, 1);
    sigaction(number, atomic_load(&chained[index_of(number)][level]), NULL);
}

/* Where the processor does not say it, any access may be one: a page is then never sealed for long. */
static bool is_store(const void *machine) {
#if defined(__x86_64__)
    return ((const ucontext_t *)machine)->uc_mcontext.gregs[REG_ERR] & 2;
#else
    (void)machine;
    return true;
#endif
}

/* Only the kernel's own signals speak of an address, and only they come at a point where locks may be taken. */
static void on_signal(int level, int number, siginfo_t *info, void *machine) {
    int error = errno;
    uintptr_t address = (uintptr_t)info->si_addr;
    inline_outcome outcome = INLINE_FOREIGN;
    if (number == SIGBUS && info->si_code == BUS_ADRERR)
        outcome = fault_inline(address, is_store(machine));
    if (outcome != INLINE_SERVED) {
        bool of_lost_page = number == SIGBUS && info->si_code > 0;
        if (of_lost_page)
            FAILPOINT(poison_touched);
        if (info->si_code > 0 && poison_last_words(address))
            step_aside(level, number);
        else if (outcome == INLINE_FOREIGN && !(of_lost_page && poison_may_be_gone(address)))
            /* Lost pages are found again a moment later by a touch, if not discarded meanwhile: that is no end of the handler. */
            chain(level, number, info, machine);
    }
    errno = error;
}

#define LEVEL(n)                                                                                                       \
    static void on_signal_##n(int number, siginfo_t *info, void *machine) {                                            \
        on_signal(n, number, info, machine);                                                                           \
    }
LEVEL(0)
LEVEL(1)
LEVEL(2)
LEVEL(3)
LEVEL(4)
LEVEL(5)
LEVEL(6)
LEVEL(7)
#undef LEVEL

static handler *const handlers[LEVELS] = {on_signal_0, on_signal_1, on_signal_2, on_signal_3,
                                          on_signal_4, on_signal_5, on_signal_6, on_signal_7};

/* ---- installing ---- */

static int level_of(const struct sigaction *action) {
    for (int level = 0; level < LEVELS; level++)
        if (action->sa_sigaction == handlers[level])
            return level;
    return -1;
}

static bool is_terminal(const struct sigaction *action) {
    return action->sa_handler == SIG_DFL || action->sa_handler == SIG_IGN;
}

static bool leads_to(int which, int level, const struct sigaction *action) {
    const struct sigaction *next = atomic_load(&chained[which][level]);
    return next && next->sa_sigaction == action->sa_sigaction;
}

/* Whether the level is in its own chain still, and not cut out of it (choose_level). */
static bool is_whole(int which, int level) {
    return atomic_load(&chained[which][level]) == &record[which][level];
}

/* Whether no chain leads to the level, or to its record. */
static bool is_free(int which, int level) {
    if (level == atomic_load(&top[which]) || is_whole(which, level))
        return false;
    for (int other = 0; other < LEVELS; other++)
        if (atomic_load(&chained[which][other]) == &record[which][level] ||
            (is_whole(which, other) && under[which][other] == level))
            return false;
    return true;
}

/* The level to go over this handler with. */
static int choose_level(int which, const struct sigaction *present) {
    int before = atomic_load(&top[which]);
    for (int level = 0; level < LEVELS; level++) {
        if (!leads_to(which, level, present))
            continue;
        if (is_terminal(present))
            return level;
        /* It was under this level before, and may have been installed over it since: out of that chain with it. */
        int below = is_whole(which, level) ? under[which][level] : -1;
        atomic_store(&chained[which][level], below >= 0 ? atomic_load(&chained[which][below]) : &default_action);
    }
    for (int level = 0; level < LEVELS; level++) {
        if (!is_free(which, level))
            continue;
        record[which][level] = *present;
        under[which][level] = before;
        atomic_store(&chained[which][level], &record[which][level]);
        return level;
    }
    return before; /* more handlers lie over each other than there are levels: the newest is left out, rather than making a ring */
}

static void install(int number, struct sigaction present) {
    int which = index_of(number);
    while (level_of(&present) < 0) {
        struct sigaction found, ours = {.sa_flags = SA_SIGINFO | SA_ONSTACK};
        int level = choose_level(which, &present);
        sigfillset(&ours.sa_mask);
        ours.sa_sigaction = handlers[level];
        sigaction(number, &ours, &found);
        atomic_store(&top[which], level);
        if (found.sa_sigaction == present.sa_sigaction)
            return;
        present = found; /* somebody was faster: we are over that one now */
    }
    atomic_store(&top[which], level_of(&present));
}

void signal_arm(int number) {
    struct sigaction present;
    if (atomic_load(&ending) || sigaction(number, NULL, &present) != 0)
        return;
    int level = level_of(&present);
    if (level >= 0 && level == atomic_load(&top[index_of(number)]))
        return;
    small_lock_acquire(&arm_lock);
    if (sigaction(number, NULL, &present) == 0)
        install(number, present);
    small_lock_release(&arm_lock);
}

void signal_arm_in_child(int number) {
    atomic_store(&arm_lock.state, 0);
    signal_arm(number);
}

EXPORT void uswap_signals_check(void) {
    if (atomic_load(&top[index_of(SIGBUS)]) >= 0) {
        unsigned char mask[sizeof(sigset_t)];
        signals_block(mask);
        signal_arm(SIGBUS);
        signals_restore(mask);
    }
}
