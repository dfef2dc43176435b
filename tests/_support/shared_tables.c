/*
 * shared_tables.c - processes that share the tables of a group, and die at every step of them: the test of csrc/shared without the kernel's
 * part (no userfaultfd, no sockets).
 *
 * Workers do what members do with pages, frames, slots and chunks. Each failpoint of the core, and each step here, is a place where a worker may
 * be killed or stopped; which one, its own dice say, not the time. Survivors mend. At last everything is counted, and every page read.
 *
 * shared_tables FOLDER SEED DEATHS
 */
#define _GNU_SOURCE
#include "shared_model.h"

#include "base/failpoint.h"
#include "shared/mend.h"
#include "shared/use_word.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define WORKERS 4
#define LIMIT_BYTES (UINT64_C(8) << 20) /* 32 chunks of 64 frames */
#define SHARED_CHUNKS 5U
#define LAST_OPERATIONS 3000

group g;
int object_fd;
_Atomic uint64_t *expected;
static int commons_fd;
static _Atomic uint32_t *deaths_left;
static uint64_t dice_state;
static bool mortal, alone;
static bool unawaited; /* the end of a dead member's writes cannot be waited for */

/* ---- dice, death ---- */

uint64_t dice(uint64_t sides) {
    dice_state ^= dice_state << 13;
    dice_state ^= dice_state >> 7;
    dice_state ^= dice_state << 17;
    return (dice_state * UINT64_C(0x2545F4914F6CDD1D) >> 33) % sides;
}

void step(void) {
    if (!mortal || dice(700) != 0)
        return;
    if (!alone && dice(4) == 0)
        kill(getpid(), SIGSTOP);
    uint32_t left = atomic_load(deaths_left);
    while (left > 0)
        if (atomic_compare_exchange_weak(deaths_left, &left, left - 1))
            kill(getpid(), SIGKILL);
}

_Atomic uint32_t failpoints_armed = 1;

int failpoint_hit(failpoint_id id) {
    if (id == FAILPOINT_repair_barrier)
        return unawaited ? -EOPNOTSUPP : 0;
    if (id != FAILPOINT_shared_fallocate)
        step();
    return 0;
}

void die(const char *what, uint64_t page, uint64_t value) {
    fprintf(stderr, "%s: page %llu: %llu\n", what, (unsigned long long)page, (unsigned long long)value);
    abort();
}

/* ---- what other files of the core do ---- */

shared_region *shared_region_get(group *of, uint32_t index) {
    (void)of, (void)index;
    return NULL;
}

void shared_region_put(shared_region *r) {
    (void)r;
}

void shared_wake(group *of, shared_region *r, size_t page, size_t pages) {
    (void)of, (void)r, (void)page, (void)pages;
}

int peers_object_fd(group *of, uint32_t object) {
    (void)of, (void)object;
    return fcntl(object_fd, F_DUPFD_CLOEXEC, 3);
}

void objects_end(group *of, uint32_t index) {
    (void)of, (void)index;
}

/* No size changes here. */
bool object_mend_size(group *of, uint32_t index, member_id dead) {
    (void)of, (void)index, (void)dead;
    return true;
}

/* ---- frames, slots and chunks by themselves ---- */

static void hold_frames(void) {
    uint32_t frames[16], count = frame_table_claim(&g, (uint32_t)dice(16) + 1, frames);
    step();
    while (count > 0)
        frame_table_release(&g, frames[--count]);
}

static void hold_slots(void) {
    uint64_t first = 0;
    uint32_t count = slot_table_claim(&g, (uint32_t)dice(64) + 1, &first);
    step();
    while (count > 0)
        slot_table_release(&g, first + --count);
}

static void move_chunks(void) {
    uint64_t taken = grants_take(&g, dice(4));
    step();
    if (dice(2) == 0)
        grants_share(&g, dice(2));
    if (grants_shared(&g) > SHARED_CHUNKS)
        grants_unshare(&g, 1 + dice(2), dice(2));
    grants_unshare(&g, 0, 0);
    grants_give(&g, taken + dice(2));
}

static void mend_others(void) {
    member_id dead[MEMBERS_MAX];
    unsigned count = members_unburied(&g, dead);
    while (count > 0)
        repair_after(&g, dead[--count]);
}

/* ---- processes ---- */

static void join(void) {
    if (commons_attach(&g.commons, fcntl(commons_fd, F_DUPFD_CLOEXEC, 3)) != 0 || members_join(&g) != 0)
        die("join", 0, (uint64_t)errno);
    object_entry *object = group_object(&g, 0);
    uint64_t bit = UINT64_C(1) << member_index(g.self);
    if (atomic_fetch_or(&object->mappers, bit) & (bit | MAPPERS_CLOSED))
        die("the place of a dead member is taken, and it is a mapper still", 0, g.self.value);
    members_announce(&g);
}

static _Noreturn void worker(uint64_t seed) {
    dice_state = seed * UINT64_C(0x9E3779B97F4A7C15) | 1;
    mortal = true;
    join();
    for (int after = 0; after < LAST_OPERATIONS; after += atomic_load(deaths_left) == 0) {
        uint64_t what = dice(100);
        if (what < 90)
            use_page(dice(PAGES));
        else if (what < 94)
            hold_frames();
        else if (what < 98)
            hold_slots();
        else
            move_chunks();
        if (dice(100) == 0)
            mend_others();
    }
    mortal = false;
    grants_unshare(&g, 0, 0);
    grants_give(&g, CHUNKS_MAX);
    mappers_leave(group_object(&g, 0), member_index(g.self));
    members_leave(&g);
    _exit(0);
}

static void make_object(void) {
    object_entry *object = group_object(&g, 0);
    atomic_store(&object->size, PAGES);
    atomic_store(&object->words, (uint64_t)commons_allot(&g.commons, PAGES * sizeof(shared_word)));
    atomic_store(&object->words_bytes, PAGES * sizeof(shared_word));
    atomic_store(&object->state, object_state_make(OBJECT_LIVE, 1, MEMBER_NONE));
    object_fd = memfd_create("object", MFD_CLOEXEC);
    if (ftruncate(object_fd, PAGES << PAGE_SHIFT) != 0)
        die("ftruncate", 0, (uint64_t)errno);
}

static void make_group(const char *folder) {
    if (commons_create(&g.commons, LIMIT_BYTES) != 0)
        die("commons", 0, (uint64_t)errno);
    commons_fd = g.commons.fd;
    g.swap_fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (members_join(&g) != 0)
        die("join", 0, 0);
    members_announce(&g);
    make_object();
    atomic_store(&group_object(&g, 0)->mappers, UINT64_C(1) << member_index(g.self));
    if (slot_table_reserve(&g) != 0 || grants_share(&g, SHARED_CHUNKS) != SHARED_CHUNKS)
        die("reserve", 0, 0);
}

/* ---- the end ---- */

static uint64_t count_frames(use_kind kind) {
    uint64_t count = 0;
    const commons_header *head = commons_head(&g.commons);
    for (uint64_t i = 0; i < commons_limit_chunks(&g.commons) * head->chunk_frames; i++)
        count += use_kind_of(use_load(&commons_frames(&g.commons)[i].use)) == kind &&
                 atomic_load(&commons_chunks(&g.commons)[i / head->chunk_frames]) == CHUNK_SHARED;
    return count;
}

static uint64_t count_slots(use_kind kind) {
    uint64_t count = 0;
    for (uint64_t i = 0; i < atomic_load(&commons_head(&g.commons)->usable_slots); i++)
        count += use_kind_of(use_load(&commons_slots(&g.commons)[i].use)) == kind;
    return count;
}

static void expect(const char *what, uint64_t found, uint64_t wanted) {
    if (found == wanted)
        return;
    fprintf(stderr, "%s: %llu, not %llu\n", what, (unsigned long long)found, (unsigned long long)wanted);
    exit(1);
}

static uint64_t check_pages(uint64_t *kept) {
    uint64_t contents[WORDS], resident = 0;
    for (uint64_t page = 0; page < PAGES; page++) {
        uint64_t word = shared_load(word_of(page));
        if (word & SHARED_LOCK)
            die("locked", page, word);
        if (shared_state_of(word) == SHARED_RESIDENT) {
            resident++;
            *kept += frame_table_slot(&g, (uint32_t)shared_field_of(word)) != 0;
            transfer(false, object_fd, contents, page);
            check_contents(contents, page, "resident at the end");
        } else if (shared_state_of(word) == SHARED_SWAPPED) {
            ++*kept;
            transfer(false, g.swap_fd, contents, shared_field_of(word));
            check_contents(contents, page, "swapped at the end");
        } else if (shared_state_of(word) != SHARED_ZERO) {
            die("neither in memory nor in a slot nor zero", page, word);
        }
    }
    return resident;
}

/* What the hints hide cannot be claimed: all of it must be. They are put right now and then, and it is time. */
static void claim_all(uint64_t frames, uint64_t slots) {
    atomic_store(&g.slots_looked_ns, 0);
    uint32_t *all = calloc(frames + 1, sizeof *all), claimed = frame_table_claim(&g, (uint32_t)frames + 1, all);
    expect("frames that can be claimed", claimed, frames);
    while (claimed > 0)
        frame_table_release(&g, all[--claimed]);
    uint64_t *runs = calloc(slots + 1, 2 * sizeof *runs), count = 0, run = 0;
    while ((runs[2 * run + 1] = slot_table_claim(&g, 256, &runs[2 * run])) > 0)
        count += runs[2 * run++ + 1];
    expect("slots that can be claimed", count, slots);
    while (run-- > 0)
        for (uint64_t i = 0; i < runs[2 * run + 1]; i++)
            slot_table_release(&g, runs[2 * run] + i);
    free(runs);
    free(all);
}

/* Holds whatever the workers are doing, and whatever of them is dead and not mended yet. */
static void check_words(void) {
    uswap_error error = {0};
    if (group_check(&g, &error) == 0)
        return;
    fprintf(stderr, "%s\n", error.detail);
    signal(SIGTERM, SIG_IGN);
    kill(0, SIGTERM);
    exit(1);
}

static void check_all(void) {
    check_words();
    const commons_header *head = commons_head(&g.commons);
    uint64_t kept = 0, resident = check_pages(&kept), shared = grants_shared(&g) * head->chunk_frames;
    uint64_t retired = count_slots(USE_RETIRED);
    if (!unawaited)
        expect("slots that are not used again", retired, 0);
    expect("free chunks and shared ones", grants_free(&g) + grants_shared(&g), commons_limit_chunks(&g.commons));
    struct stat file;
    fstat(object_fd, &file);
    expect("pages of the object's file", (uint64_t)file.st_blocks * 512 / PAGE_BYTES, resident);
    expect("frames of pages", count_frames(USE_PAGE), resident);
    expect("free frames", count_frames(USE_FREE), shared - resident);
    expect("slots of pages", count_slots(USE_PAGE), kept);
    expect("free slots", count_slots(USE_FREE), atomic_load(&head->usable_slots) - kept - retired);
    expect("mappers", atomic_load(&group_object(&g, 0)->mappers), UINT64_C(1) << member_index(g.self));
    claim_all(shared - resident, atomic_load(&head->usable_slots) - kept - retired - 1); /* the barrier's is nobody's */
}

/* What is wrong must be found: the word has that value for one check. */
static void plant(const char *what, _Atomic uint64_t *word, uint64_t value) {
    uswap_error error = {0};
    uint64_t right = atomic_exchange(word, value);
    if (group_check(&g, &error) == 0) {
        fprintf(stderr, "%s: not found\n", what);
        exit(1);
    }
    atomic_store(word, right);
}

/* In words of each kind; the id is that of no life in any place. */
static void plant_all(void) {
    const uint64_t nobody = UINT64_C(1000) << 6 | 5, step = UINT64_C(1) << 28;
    shared_frame *frame = commons_frames(&g.commons);
    shared_slot *slot = commons_slots(&g.commons);
    while (use_kind_of(atomic_load(&frame->use)) != USE_PAGE)
        frame++;
    while (use_kind_of(atomic_load(&slot->use)) != USE_PAGE)
        slot++;
    shared_word *word = shared_ref_word(&g, (shared_ref){atomic_load(&frame->page)});
    plant("a frame of another page", &frame->page, atomic_load(&frame->page) ^ step);
    plant("a frame that is free, and has a page", &frame->use, 0);
    plant("a slot of another page", &slot->page, atomic_load(&slot->page) ^ step);
    plant("a slot that is free, and has a page", &slot->use, 0);
    plant("a slot in nobody's hand", &slot->use, use_make(USE_CLAIMED, (member_id){(uint16_t)nobody}, 0));
    plant("a page that nobody has locked", word, atomic_load(word) | SHARED_LOCK | nobody << SHARED_MEMBER_SHIFT);
    plant("a page that is nowhere, and has a frame", word, 0);
    check_words();
}

static pid_t begin(uint64_t seed) {
    pid_t pid = fork();
    if (pid == 0)
        worker(seed);
    return pid;
}

/* Stopped ones go on after a few deaths more, or when nobody else is running. */
static void go_on(pid_t *stopped, int *count, int keep) {
    while (*count > keep)
        kill(stopped[--*count], SIGCONT);
}

static void mend_all(void) {
    for (member_id left[MEMBERS_MAX]; members_unburied(&g, left) > 0;)
        mend_others();
}

static void fail(int status) {
    fprintf(stderr, "a worker ended with status %x\n", (unsigned)status);
    signal(SIGTERM, SIG_IGN);
    kill(0, SIGTERM);
    exit(1);
}

/* One dies, by itself: whatever it leaves is mended, at once and wholly. */
static void die_alone(uint64_t *seed, uint32_t deaths) {
    alone = true;
    for (; deaths > 0; deaths--) {
        int status;
        atomic_store(deaths_left, 1);
        begin(++*seed);
        wait(&status);
        if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
            fail(status);
        mend_all();
        check_all();
    }
    alone = false;
}

/* Many die, and are stopped, also while they mend what others left. */
static void die_together(uint64_t *seed, uint32_t count) {
    int running = 0, halted = 0, deaths = 0, status;
    pid_t stopped[WORKERS];
    atomic_store(deaths_left, count);
    for (; running < WORKERS; running++)
        begin(++*seed);
    while (running > 0) {
        pid_t pid = waitpid(-1, &status, WUNTRACED);
        check_words();
        if (WIFSTOPPED(status)) {
            stopped[halted++] = pid;
            go_on(stopped, &halted, running - 1);
        } else if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) {
            begin(++*seed);
            if (++deaths % 3 == 0)
                go_on(stopped, &halted, 0);
        } else if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
            running--;
            go_on(stopped, &halted, MAX_OF(running - 1, 0));
        } else {
            fail(status);
        }
    }
    mend_all();
    check_all();
}

int main(int argc, char **argv) {
    if (argc < 4)
        return 2;
    uint64_t seed = strtoull(argv[2], NULL, 10) * 1000000;
    void *shared =
        mmap(NULL, (PAGES + 1) * sizeof(uint64_t), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    expected = shared;
    deaths_left = (void *)(expected + PAGES);
    unawaited = argc > 4 && strcmp(argv[4], "unawaited") == 0;
    make_group(argv[1]);
    die_alone(&seed, (uint32_t)atoi(argv[3]));
    die_together(&seed, (uint32_t)atoi(argv[3]));
    plant_all();
    if (unawaited && count_slots(USE_RETIRED) == 0)
        die("a dead member's writes may be under way, and all its slots are used again", 0, 0);
    printf("%llu resident, %llu slots\n", (unsigned long long)count_frames(USE_PAGE),
           (unsigned long long)count_slots(USE_PAGE));
    return 0;
}
