/*
 * board.c - the slots of a board, as the processes of a program take and leave them.
 *
 * The board is a memfd of the one that watches. It is found by /proc/PID/fd/N, which stands in the environment: so no descriptor has to survive what
 * programs do to those. Where it cannot be opened (another user, another namespace), a process speaks for itself at its exit, or not at all.
 */
#define _GNU_SOURCE
#include "run/board.h"

#include "pool.h"
#include "run/run.h"
#include "run/watch.h"
#include "shared/group.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* What running.py has put into the environment, to be overwritten where it is: nothing is allocated for it. */
#define BOARD_NAME "USWAP_RUN_BOARD"
#define BOARD_FORMAT "%010d:%06d:%016llx"

typedef struct {
    board_totals totals;
    board_slot slots[BOARD_SLOTS];
} board_page;

#define BOARD_BYTES sizeof(board_page)

static board_page *board;
static board_slot *mine; /* of this process; that of its parent in a child that has none */
static pid_t mine_of;    /* the process that has taken it */

static uint64_t holder_word(pid_t pid, slot_state state) {
    return (uint64_t)pid << 8 | state;
}

static pid_t pid_of(uint64_t holder) {
    return (pid_t)(holder >> 8);
}

static slot_state state_of(uint64_t holder) {
    return holder & 0xFF;
}

static bool is_gone(const board_slot *slot, pid_t pid) {
    uint64_t start_time = process_start_time((uint32_t)pid);
    return start_time == 0 || (slot->start_time != 0 && start_time != slot->start_time);
}

/* ---- what is said of a slot ---- */

static void add(_Atomic uint64_t *total, const _Atomic uint64_t *part) {
    atomic_fetch_add(total, atomic_load(part));
}

const char *run_refused_text(uint64_t forks, char text[48]) {
    snprintf(text, 48, forks > 0 ? "; %llu fork%s refused" : "", (unsigned long long)forks, forks == 1 ? "" : "s");
    return text;
}

void run_board_note_refused(void) {
    if (mine && mine_of == getpid())
        atomic_fetch_add(&mine->forks_refused, 1);
}

/* => the slot is free. */
static void let_go(board_slot *slot) {
    const pool_counters *c = &slot->counters;
    board_totals *t = &board->totals;
    atomic_fetch_add(&t->processes, 1);
    add(&t->faults, &c->faults);
    add(&t->major_faults, &c->major_faults);
    add(&t->pages_in, &c->pages_in);
    add(&t->pages_out, &c->pages_out);
    add(&t->stall_ns, &c->stall_ns);
    add(&t->forks_refused, &slot->forks_refused);
    atomic_store(&slot->holder, 0);
}

void run_board_say(board_slot *slot, int to, const char *how) {
    char line[512], limit[32], peak[32], in[32], out[32], refused[48];
    const pool_counters *c = &slot->counters;
    pid_t pid = pid_of(atomic_load(&slot->holder));
    int length = snprintf(line, sizeof line,
                          "uswap run: %.63s[%d]%s: peak %s of %s; %llu faults, %llu of them from swap; %s in, %s out; "
                          "waited %.3f s%s\n",
                          slot->name, (int)pid, how, run_size_text(c->peak_frames << PAGE_SHIFT, peak),
                          run_size_text(slot->limit_bytes, limit), (unsigned long long)c->faults,
                          (unsigned long long)c->major_faults, run_size_text(c->pages_in << PAGE_SHIFT, in),
                          run_size_text(c->pages_out << PAGE_SHIFT, out), (double)c->stall_ns / 1e9,
                          run_refused_text(slot->forks_refused, refused));
    ssize_t written = write(to, line, (size_t)MIN_OF(length, (int)sizeof line - 1));
    (void)written;
    let_go(slot);
}

void run_board_note_together(uint64_t bytes) {
    if (board && bytes > atomic_load(&board->totals.peak_bytes)) /* one process says so at a time */
        atomic_store(&board->totals.peak_bytes, bytes);
}

void run_board_say_together(int to) {
    char line[512], limit[32], peak[32], in[32], out[32], refused[48];
    const board_totals *t = &board->totals;
    int length = snprintf(
        line, sizeof line,
        "uswap run: %llu processes together: peak %s of %s; %llu faults, %llu of them from swap; %s in, "
        "%s out; waited %.3f s%s\n",
        (unsigned long long)t->processes, run_size_text(t->peak_bytes, peak), run_size_text(run_set.limit_bytes, limit),
        (unsigned long long)t->faults, (unsigned long long)t->major_faults,
        run_size_text(t->pages_in << PAGE_SHIFT, in), run_size_text(t->pages_out << PAGE_SHIFT, out),
        (double)t->stall_ns / 1e9, run_refused_text(t->forks_refused, refused));
    ssize_t written = write(to, line, (size_t)MIN_OF(length, (int)sizeof line - 1));
    (void)written;
}

void run_board_tell(int to, pid_t but) {
    for (int i = 0; board && i < BOARD_SLOTS; i++) {
        board_slot *slot = &board->slots[i];
        uint64_t holder = atomic_load(&slot->holder);
        pid_t pid = pid_of(holder);
        if (state_of(holder) == SLOT_FREE || pid == but || !is_gone(slot, pid))
            continue;
        if (state_of(holder) == SLOT_TAKEN) /* it died before it was anybody */
            atomic_store(&slot->holder, 0);
        else
            run_board_say(slot, to, "");
    }
}

board_slot *run_board_of(pid_t pid) {
    for (int i = 0; board && i < BOARD_SLOTS; i++)
        if (atomic_load(&board->slots[i].holder) == holder_word(pid, SLOT_LIVE))
            return &board->slots[i];
    return NULL;
}

void run_board_said(void) {
    if (mine && mine_of == getpid())
        let_go(mine);
    mine = NULL;
}

/* ---- a slot for this process ---- */

static board_slot *take_free(pid_t pid) {
    for (int i = 0; i < BOARD_SLOTS; i++) {
        uint64_t free = 0;
        if (atomic_compare_exchange_strong(&board->slots[i].holder, &free, holder_word(pid, SLOT_TAKEN)))
            return &board->slots[i];
    }
    return NULL;
}

/* In the place of the pool's own counters (pool.h), once in each process. */
static pool_counters *counters(void) {
    pid_t pid = getpid();
    if (!board || mine_of == pid)
        return NULL;
    board_slot *slot = take_free(pid);
    if (!slot) {
        run_board_tell(STDERR_FILENO, 0);
        slot = take_free(pid);
    }
    mine = slot;
    mine_of = pid;
    if (!slot)
        return NULL;
    memset((char *)slot + sizeof slot->holder, 0, sizeof *slot - sizeof slot->holder);
    slot->start_time = process_start_time((uint32_t)pid);
    slot->limit_bytes = run_set.limit_bytes;
    snprintf(slot->name, sizeof slot->name, "%s", program_invocation_short_name);
    atomic_store(&slot->holder, holder_word(pid, SLOT_LIVE));
    return &slot->counters;
}

/* ---- the board ---- */

static bool map_board(int fd) {
    void *memory = run_core_mmap(NULL, BOARD_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    board = memory == MAP_FAILED ? NULL : memory;
    return board != NULL;
}

/* => the board of an ancestor, if it is that: a process of another namespace may have the same number. */
static void join(const char *text) {
    int pid, number;
    unsigned long long inode;
    struct stat status;
    char path[64];
    if (sscanf(text, "%d:%d:%llx", &pid, &number, &inode) != 3)
        return;
    snprintf(path, sizeof path, "/proc/%d/fd/%d", pid, number);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return;
    if (run_core_fstat(fd, &status) == 0 && status.st_ino == inode && (size_t)status.st_size == BOARD_BYTES)
        map_board(fd);
    run_core_close(fd);
    board_slot *before = run_board_of(getpid());
    if (before) /* what this process was until it executed this program */
        run_board_say(before, STDERR_FILENO, ", which became another program");
}

static void make(char *text) {
    struct stat status;
    int fd = memfd_create("uswap-run-board", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, (off_t)BOARD_BYTES) != 0 || run_core_fstat(fd, &status) != 0 || !map_board(fd)) {
        if (fd >= 0)
            run_core_close(fd);
        return;
    }
    char value[64];
    snprintf(value, sizeof value, BOARD_FORMAT, (int)getpid(), fd, (unsigned long long)status.st_ino);
    if (strlen(value) != strlen(text))
        return;
    strcpy(text, value);
    run_watch(fd);
    run_core_close(fd);
}

void run_board_begin(void) {
    char *text = getenv(BOARD_NAME);
    if (!run_set.report || !text || run_set.limit_bytes == 0)
        return;
    if (strtol(text, NULL, 10) > 0)
        join(text);
    else
        make(text);
    if (board)
        pool_counters_elsewhere = counters;
}
