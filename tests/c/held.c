/*
 * held.c - what a debug build finds of locks that are taken in a wrong order, or given back by who has not got them (I21): each in a process of its
 * own, which must end there.
 */
#include "part.h"

#include "base/gate.h"
#include "base/lock.h"
#include "region/page_word.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static gate door, other_door;
static small_lock lock;
static page_word page, other_page;

/* ---- what may be done ---- */

static void in_order(void) {
    gate_enter(&door);
    page_lock(&page);
    CHECK(page_try_lock(&other_page));
    CHECK(!page_try_lock(&page));
    page_unlock(&page);
    page_unlock(&other_page);
    gate_leave(&door);
    gate_enter(&other_door);
    small_lock_acquire(&lock);
    small_lock_release(&lock);
    gate_leave(&other_door);
    gate_close(&door);
    page_lock(&page);
    page_unlock(&page);
    gate_open(&door);
}

/* ---- what may not ---- */

static void enters_twice(void) {
    gate_enter(&door);
    gate_enter(&door);
}

static void closes_inside(void) {
    gate_enter(&other_door);
    gate_close(&door);
}

static void leaves_from_outside(void) {
    gate_leave(&door);
}

static void enters_with_a_page(void) {
    page_lock(&page);
    gate_enter(&door);
}

static void leaves_with_a_page(void) {
    gate_enter(&door);
    page_lock(&page);
    gate_leave(&door);
}

static void waits_for_two_pages(void) {
    page_lock(&page);
    page_lock(&other_page);
}

static void gives_a_page_back_twice(void) {
    page_lock(&page);
    page_unlock(&page);
    page_unlock(&page);
}

static void gives_a_lock_back_twice(void) {
    small_lock_acquire(&lock);
    small_lock_release(&lock);
    small_lock_release(&lock);
}

static bool is_found(void (*wrong)(void)) {
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
        CHECK(dup2(open("/dev/null", O_WRONLY), STDERR_FILENO) >= 0); /* its last line */
        wrong();
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

int main(void) {
    static void (*const wrong[])(void) = {
        enters_twice,       closes_inside,       leaves_from_outside,     enters_with_a_page,
        leaves_with_a_page, waits_for_two_pages, gives_a_page_back_twice, gives_a_lock_back_twice,
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        CHECK(is_found(wrong[i]));
    in_order();
    return 0;
}
