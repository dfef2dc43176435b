/*
 * keeper.c - the process that keeps a program's named pool, so that there is one while its last member becomes another program (README, One limit for all).
 *
 * It has no regions: of the limit it has a floor, which it does not use.
 */
#define _GNU_SOURCE
#include "run/board.h"
#include "run/run.h"

#include "base/status.h"
#include "pool.h"
#include "shared/group.h"
#include "shared/peers.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* A program that has been started by one that is gone joins within this time, or makes the pool anew. */
#define ALONE_NS UINT64_C(500000000)
/* The peer thread looks around as often. */
#define LOOK_NS UINT64_C(100000000)

/* What the keeper says when there is a pool, or that there is none. */
typedef struct {
    int status;
    uswap_error err;
} word;

/* ---- the keeper ---- */

static bool is_alone(const group *g) {
    for (unsigned i = 0; i < MEMBERS_MAX; i++)
        if (peer_at(g, i).value != 0 && i != member_index(g->self))
            return false;
    return true;
}

static void note_use(const group *g) {
    uint64_t frames = shared_used_frames(&g->commons);
    for (unsigned i = 0; i < MEMBERS_MAX; i++)
        if (peer_at(g, i).value != 0)
            frames += atomic_load(&commons_head(&g->commons)->members[i].private_frames);
    run_board_note_together(frames << PAGE_SHIFT);
}

static void watch_over(group *g) {
    uint64_t alone_since = 0, now;
    do {
        uint32_t seen = event_count(&g->tended);
        now = clock_now_ns();
        note_use(g);
        if (!is_alone(g))
            alone_since = 0;
        else if (alone_since == 0)
            alone_since = now;
        event_wait(&g->tended, seen, LOOK_NS);
    } while (alone_since == 0 || now < alone_since + ALONE_NS);
}

static int make_pool(uswap_pool **pool, uswap_error *err) {
    uswap_options options;
    uswap_options_init(&options);
    options.limit_bytes = run_set.limit_bytes;
    options.fault_mode = USWAP_FAULTS_THREAD;
    int status = uswap_pool_create(&options, pool, err);
    return status != 0
               ? status
               : uswap_group_create(*pool, run_set.pool_folder, run_set.limit_bytes, run_set.swap_folder, 0, err);
}

/* Whoever it was that has asked may be gone by now: then nobody is told, and it is alone. */
_Noreturn static void keep(int to, int lock) {
    uswap_pool *pool;
    word said = {.status = 0};
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    run_descriptors_close_all_but(to, lock);
    prctl(PR_SET_NAME, "uswap-keeper");
    pool_counters_elsewhere = NULL; /* it is none of the program's processes */
    if (chdir("/") != 0)            /* the program's may be unmounted */
        _exit(2);
    said.status = make_pool(&pool, &said.err);
    run_core_close(lock);
    ssize_t written = write(to, &said, sizeof said);
    (void)written;
    run_core_close(to);
    if (said.status != 0)
        _exit(2);
    watch_over(atomic_load(&pool->group));
    uswap_group_leave(pool, NULL);
    run_pool_lock_forget();
    _exit(0);
}

/* ---- who starts it ---- */

static int no_keeper(uswap_error *err, const char *why) {
    snprintf(err->detail, sizeof err->detail, "the process that keeps the pool cannot be started: %s", why);
    return USWAP_E_OS;
}

/* Its parent is gone at once: the program has no child that it does not know of. */
static pid_t fork_orphan(int to, int lock) {
    pid_t between = fork();
    if (between != 0)
        return between;
    setsid();
    pid_t keeper = fork();
    if (keeper == 0)
        keep(to, lock);
    _exit(keeper < 0);
}

/* Return: whether there is something to read, or its end. */
static bool is_answered(int from) {
    uint64_t deadline_ns = clock_now_ns() + RUN_PATIENCE_NS, now_ns;
    struct pollfd answer = {.fd = from, .events = POLLIN};
    int ready = 0;
    while (ready <= 0 && (now_ns = clock_now_ns()) < deadline_ns)
        ready = poll(&answer, 1, (int)((deadline_ns - now_ns) / 1000000) + 1);
    return ready > 0;
}

int run_keeper_start(int lock, uswap_error *err) {
    int ends[2];
    word said;
    sigset_t death, before;
    if (pipe2(ends, O_CLOEXEC) != 0)
        return no_keeper(err, strerror(errno));
    sigemptyset(&death);
    sigaddset(&death, SIGCHLD);
    pthread_sigmask(SIG_BLOCK, &death, &before);
    pid_t between = fork_orphan(ends[1], lock);
    run_core_close(ends[1]);
    if (between > 0)
        run_forget_child(between, &death);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    bool answered = is_answered(ends[0]), told = answered && read(ends[0], &said, sizeof said) == sizeof said;
    run_core_close(ends[0]);
    if (!answered)
        return error_set(err, USWAP_E_BUSY, 0, "join", run_set.pool_folder,
                         "the process that keeps the pool has been making it for long. Is it stopped?");
    if (!told)
        return no_keeper(err, between < 0 ? "there is no room for a process" : "it has died");
    *err = said.err;
    return said.status;
}
