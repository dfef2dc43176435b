/*
 * fork_handlers.c - pthread_atfork, as the program calls it: its handlers are registered after the core's, whenever it asks.
 *
 * The handlers of a library that starts before us (an allocator in the program itself, say) would run while the core is still, and what they look at lies in managed memory.
 * So what is registered before there is a pool waits until the core's are.
 */
#define _GNU_SOURCE
#include "run/run.h"

#define WAITING_MAX 64

typedef void (*handler)(void);
typedef struct {
    handler prepare, in_parent, in_child;
    void *library;
} handlers;

static handlers waiting[WAITING_MAX];
static int waiting_count;
static bool begun;

static int register_now(const handlers *h) {
    static int (*libc)(handler, handler, handler, void *);
    if (!libc)
        run_look_up("__register_atfork", &libc);
    return libc(h->prepare, h->in_parent, h->in_child, h->library);
}

/* What pthread_atfork, which is linked into each library, calls. */
EXPORT int __register_atfork(handler prepare, handler in_parent, handler in_child, void *library);
EXPORT int __register_atfork(handler prepare, handler in_parent, handler in_child, void *library) {
    handlers h = {prepare, in_parent, in_child, library};
    if (begun || waiting_count == WAITING_MAX)
        return register_now(&h);
    waiting[waiting_count++] = h;
    return 0;
}

/* The runtime's own: linked with this name (setup.py). */
extern void *__dso_handle;
int run_core_pthread_atfork(handler prepare, handler in_parent, handler in_child) {
    handlers h = {prepare, in_parent, in_child, __dso_handle};
    return register_now(&h);
}

void run_fork_handlers_release(void) {
    begun = true;
    for (int i = 0; i < waiting_count; i++)
        register_now(&waiting[i]);
}
