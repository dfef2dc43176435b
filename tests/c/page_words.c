/*
 * page_words.c - the word of a page: its fields, its lock, and the table of moves between states.
 */
#include "part.h"

#include "region/page_word.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static const bool may_follow[5][5] = {
    [PAGE_ZERO] = {[PAGE_RESIDENT] = true},
    [PAGE_RESIDENT] = {[PAGE_SWAPPED] = true, [PAGE_ZERO] = true, [PAGE_RESIDENT] = true},
    [PAGE_SWAPPED] = {[PAGE_RESIDENT] = true, [PAGE_ZERO] = true, [PAGE_POISONED] = true},
    [PAGE_POISONED] = {[PAGE_ZERO] = true},
    [PAGE_FILLED] = {[PAGE_RESIDENT] = true, [PAGE_ZERO] = true},
};

/* A page in that state, locked. */
static uint64_t word_in(page_state state) {
    return (uint64_t)state | PAGE_LOCK |
           (state == PAGE_ZERO || state == PAGE_POISONED ? 0 : UINT64_C(77) << PAGE_FIELD_SHIFT);
}

static void move(page_state from, page_state to) {
    page_word page = word_in(from) | PAGE_SEALED;
    unsigned generation = page_generation_of(page_load(&page));
    if (to == PAGE_POISONED)
        page_set_poisoned(&page, 5);
    else
        page_set_state(&page, to, to == PAGE_SWAPPED ? swap_entry_make(3, 4) : SWAP_ENTRY_NONE);
    uint64_t word = page_load(&page);
    CHECK(page_state_of(word) == to && (word & PAGE_LOCK) && !page_is_sealed(word));
    bool arrives = to == PAGE_RESIDENT && from != PAGE_RESIDENT;
    CHECK(page_generation_of(word) == generation + (arrives ? 1 : 0));
}

/* Whether doing it ends the process by abort. */
static bool aborts(void (*act)(page_state, page_state), page_state from, page_state to) {
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        setrlimit(RLIMIT_CORE, &(struct rlimit){0});
        if (!freopen("/dev/null", "w", stderr))
            _exit(2);
        act(from, to);
        _exit(0);
    }
    int status;
    CHECK(waitpid(pid, &status, 0) == pid);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

static void check_moves(void) {
    for (page_state from = PAGE_ZERO; from <= PAGE_FILLED; from++)
        for (page_state to = PAGE_ZERO; to <= PAGE_POISONED; to++) {
            if (may_follow[from][to])
                move(from, to);
            else
                CHECK(aborts(move, from, to));
        }
}

static void check_fields(void) {
    page_word page = PAGE_RESIDENT | PAGE_LOCK;
    page_set_filled(&page, (fill_index){65535});
    CHECK(page_state_of(page_load(&page)) == PAGE_FILLED && page_fill_of(page_load(&page)).value == 65535);
    CHECK(swap_entry_is_none(page_entry_of(page_load(&page))));
    page_set_state(&page, PAGE_RESIDENT, SWAP_ENTRY_NONE);
    swap_entry last = swap_entry_make(SWAP_AREAS_MAX - 1, (UINT64_C(1) << SWAP_SLOT_BITS) - 1);
    page_set_state(&page, PAGE_SWAPPED, last);
    CHECK(swap_entry_equal(page_entry_of(page_load(&page)), last));
    CHECK(swap_entry_area(last) == SWAP_AREAS_MAX - 1 && swap_entry_slot(last) == (UINT64_C(1) << SWAP_SLOT_BITS) - 1);
    page_set_bits(&page, 0, PAGE_MLOCKED | 100 * PAGE_PIN_ONE);
    CHECK(page_is_held(page_load(&page)) && page_pins_of(page_load(&page)) == 100);
    page_set_bits(&page, PAGE_MLOCKED | PAGE_PIN_MASK, 0);
    CHECK(!page_is_held(page_load(&page)));
    unsigned generation = page_generation_of(page_load(&page));
    for (unsigned i = 0; i < 1024; i++) /* around once: nothing of it gets into its neighbours */
        page_renew(&page);
    CHECK(page_generation_of(page_load(&page)) == generation);
    CHECK(swap_entry_equal(page_entry_of(page_load(&page)), last) && !page_is_sealed(page_load(&page)));
    page_set_poisoned(&page, 74);
    CHECK(page_errno_of(page_load(&page)) == 74 && swap_entry_is_none(page_entry_of(page_load(&page))));
    page_set_state(&page, PAGE_ZERO, SWAP_ENTRY_NONE);
    CHECK(page_load(&page) >> PAGE_FIELD_SHIFT == 0);
}

static page_word locked_page = PAGE_RESIDENT;
static uint64_t counted;

static void *count(void *argument) {
    (void)argument;
    for (int i = 0; i < 5000; i++) {
        page_lock(&locked_page);
        counted++;
        if (i % 7 == 0)
            page_set_bits(&locked_page, 0, PAGE_MLOCKED);
        page_unlock(&locked_page);
    }
    return NULL;
}

int main(void) {
    check_moves();
    check_fields();
    in_threads(THREADS, count);
    CHECK(counted == THREADS * 5000);
    CHECK(page_load(&locked_page) == (PAGE_RESIDENT | PAGE_MLOCKED));
    CHECK(page_try_lock(&locked_page) && !page_try_lock(&locked_page));
    return 0;
}
