/*
 * stacks.c - threads whose stacks the program has allocated itself: libc keeps what it knows of a thread at the upper end of its stack, and a fork looks into it.
 *
 * While the core is still nobody could bring that in, and in the child libc changes its list of these threads before anybody serves it. So the upper ends of all such
 * stacks are pinned for the time of a fork: what the program has locked of them stays locked. Of a thread that has ended libc says nothing: its end is kept in mind
 * until the addresses go.
 */
#define _GNU_SOURCE
#include "run/space.h"

#include <string.h>

/* What libc needs there, and static thread-local variables, until the thread itself can tell. */
#define TOP_BYTES ((size_t)64 << 10)

typedef struct {
    uintptr_t start, end;
    bool pinned; /* during a fork: by it */
} stack_top;

static stack_top *tops;
static size_t count, capacity;
static small_lock lock; /* held during a fork */

/* Context: lock. Return: NULL: no memory. */
static stack_top *place_for(uintptr_t end) {
    for (size_t i = 0; i < count; i++)
        if (tops[i].end == end)
            return &tops[i];
    if (count == capacity) {
        size_t more = capacity ? 2 * capacity : 64;
        stack_top *grown = run_private_realloc(tops, more * sizeof *tops);
        if (!grown)
            return NULL;
        tops = grown;
        capacity = more;
    }
    return &tops[count++];
}

static bool note(uintptr_t start, uintptr_t end) {
    small_lock_acquire(&lock);
    stack_top *top = place_for(end);
    if (top)
        *top = (stack_top){.start = start & ~(uintptr_t)(PAGE_BYTES - 1), .end = end};
    small_lock_release(&lock);
    return top != NULL;
}

bool run_stacks_note(const pthread_attr_t *attributes) {
    void *address;
    size_t bytes;
    if (!attributes || pthread_attr_getstack(attributes, &address, &bytes) != 0 || !run_space_has(address, bytes))
        return true;
    uintptr_t end = (uintptr_t)address + bytes;
    return note(end - MIN_OF(bytes, TOP_BYTES), end);
}

void run_stacks_note_here(void) {
    pthread_attr_t attributes;
    void *address;
    size_t bytes;
    if (!run_space_has((void *)pthread_self(), 1) || pthread_getattr_np(pthread_self(), &attributes) != 0)
        return;
    pthread_attr_getstack(&attributes, &address, &bytes);
    note((uintptr_t)__builtin_frame_address(0), (uintptr_t)address + bytes);
    pthread_attr_destroy(&attributes);
}

bool run_stacks_hold(void) {
    size_t left = 0;
    bool held = true;
    small_lock_acquire(&lock);
    for (size_t i = 0; i < count; i++)
        if (run_space_managed(tops[i].start, tops[i].end))
            tops[left++] = tops[i];
    count = left;
    for (size_t i = 0; i < count; i++) {
        tops[i].pinned = run_space_pin(tops[i].start, tops[i].end);
        /* It may have been unmapped since, or mapped over: then its thread had ended. */
        held &= tops[i].pinned || !run_space_managed(tops[i].start, tops[i].end);
    }
    return held;
}

void run_stacks_let_go(void) {
    for (size_t i = 0; i < count; i++)
        if (tops[i].pinned)
            run_space_unpin(tops[i].start, tops[i].end);
    small_lock_release(&lock);
}

void run_stacks_await(void) {
    small_lock_acquire(&lock);
    small_lock_release(&lock);
}
