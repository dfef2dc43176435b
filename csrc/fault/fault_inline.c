#define _GNU_SOURCE
#include "fault/fault_inline.h"

#include "base/failpoint.h"
#include "base/memory.h"
#include "fault/bring_in.h"
#include "fault/fault_thread.h"
#include "fault/signal.h"
#include "fault/uffd.h"
#include "reclaim/write_slots.h"
#include "region/stall.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

/* The longest way down, direct reclaim with its batch of victims, takes some 8 KiB. */
#define STACK_BYTES ((size_t)64 << 10)

/* ---- the set ---- */

static int init_contexts(uswap_pool *pool, inline_set *set) {
    int status = 0;
    set->contexts = memory_map(INLINE_CONTEXTS * sizeof *set->contexts);
    set->stacks = memory_map(INLINE_CONTEXTS * STACK_BYTES);
    if (!set->contexts || !set->stacks)
        return -ENOMEM;
    for (int i = 0; i < INLINE_CONTEXTS && status == 0; i++)
        status = context_init(&set->contexts[i], pool, ACTOR_INLINE);
    return status;
}

int fault_inline_prepare(uswap_pool *pool) {
    inline_set *set = &pool->inlines;
    if (set->uffd < 0) {
        int uffd = uffd_open(pool->user_mode_only ? UFFD_USER_ONLY : UFFD_ALL_FAULTS);
        if (uffd < 0)
            return uffd;
        int status = uffd_handshake(uffd, pool->uffd_features | UFFD_FEATURE_SIGBUS);
        if (status == 0 && !set->contexts)
            status = init_contexts(pool, set);
        if (status != 0) {
            close(uffd);
            fault_inline_fini(pool);
            return status;
        }
        atomic_store(&set->idle, ~UINT64_C(0) >> (64 - INLINE_CONTEXTS));
        set->uffd = uffd;
        fault_thread_wake(pool); /* it looks after the handler from now on */
    }
    signal_arm(SIGBUS);
    return 0;
}

void fault_inline_fini(uswap_pool *pool) {
    inline_set *set = &pool->inlines;
    for (int i = 0; set->contexts && i < INLINE_CONTEXTS; i++)
        context_fini(&set->contexts[i]);
    memory_unmap(set->contexts, INLINE_CONTEXTS * sizeof *set->contexts);
    memory_unmap(set->stacks, INLINE_CONTEXTS * STACK_BYTES);
    set->contexts = NULL;
    set->stacks = NULL;
    int uffd = atomic_exchange(&set->uffd, -1);
    if (uffd >= 0)
        close(uffd);
}

/* One compare-and-swap, unless more threads fault at once than there are contexts. Return: its index. */
static int claim_context(inline_set *set) {
    for (;;) {
        uint32_t seen = event_count(&set->returned);
        uint64_t idle = atomic_load(&set->idle);
        while (idle != 0)
            if (atomic_compare_exchange_weak(&set->idle, &idle, idle & (idle - 1)))
                return __builtin_ctzll(idle);
        event_wait(&set->returned, seen, 0);
    }
}

static void return_context(inline_set *set, int index) {
    write_slots_return(&set->contexts[index]);
    atomic_fetch_or(&set->idle, UINT64_C(1) << index);
    event_signal(&set->returned);
}

/* ---- another stack ---- */

/* Runs function(argument) on the stack that ends at top. Whatever stack the thread has, the handler takes little of it: an alternate
 * signal stack may be as small as 8 KiB, and a part of that is the kernel's. */
static void call_on_stack(void *top, void (*function)(void *), void *argument) {
#if defined(__x86_64__)
    __asm__ volatile("movq %%rsp, %%rbx\n\t"
                     "movq %[top], %%rsp\n\t"
                     "callq *%[function]\n\t"
                     "movq %%rbx, %%rsp"
                     : "+D"(argument)
                     : [top] "r"(top), [function] "r"(function)
                     : "rbx", "rax", "rcx", "rdx", "rsi", "r8", "r9", "r10", "r11", "xmm0", "xmm1", "xmm2", "xmm3",
                       "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14",
                       "xmm15", "cc", "memory");
#elif defined(__aarch64__)
    register void *first __asm__("x0") = argument;
    __asm__ volatile("mov x19, sp\n\t"
                     "mov sp, %[top]\n\t"
                     "blr %[function]\n\t"
                     "mov sp, x19"
                     : "+r"(first)
                     : [top] "r"(top), [function] "r"(function)
                     : "x1", "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13", "x14", "x15",
                       "x16", "x17", "x18", "x19", "x30", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v16", "v17",
                       "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26", "v27", "v28", "v29", "v30", "v31",
                       "cc", "memory");
#else
    (void)top;
    function(argument);
#endif
}

/* ---- one fault ---- */

typedef struct {
    context *ctx;
    region *r;
    size_t page;
    bool write;
    int status;
} inline_fault;

static void serve(void *argument) {
    inline_fault *f = argument;
    uint64_t begin = clock_now_ns();
    FAILPOINT(fault_inline);
    f->status = bring_in(f->ctx, f->r, f->page, f->write, SHORTAGE_GO_OVER);
    STAT_ADD(f->ctx->pool, inline_faults, 1);
    stall_note(f->ctx->pool, f->r, f->page, clock_now_ns() - begin);
}

static inline_outcome serve_region(uswap_pool *pool, region *r, uintptr_t address, bool write) {
    inline_set *set = &pool->inlines;
    inline_fault f = {.r = r, .page = (address - (uintptr_t)r->base) >> PAGE_SHIFT, .write = write};
    if (page_state_of(page_load(&r->object.words[f.page])) == PAGE_POISONED)
        return INLINE_LOST;
    int index = claim_context(set);
    f.ctx = &set->contexts[index];
    call_on_stack(set->stacks + (size_t)(index + 1) * STACK_BYTES, serve, &f);
    return_context(set, index);
    return f.status == -EIO ? INLINE_LOST : INLINE_SERVED; /* gone: what is there now shows when it is touched again */
}

static inline_outcome serve_in(uswap_pool *pool, uintptr_t address, bool write) {
    region *r = region_get_by_address(&pool->regions, address);
    if (!r) {
        if (!region_is_leaving(&pool->regions, address))
            return INLINE_FOREIGN;
        sched_yield(); /* about to be ordinary memory, or gone */
        return INLINE_SERVED;
    }
    if (atomic_load(&r->resizing) == RESIZING_STILL) { /* where it is will be known when that is over */
        region_put(r);
        region_await_settled(r, RESIZING_STILL);
        return INLINE_SERVED;
    }
    inline_outcome outcome = INLINE_FOREIGN;
    if (r->uffd == pool->inlines.uffd)
        outcome = serve_region(pool, r, address, write);
    region_put(r);
    return outcome;
}

inline_outcome fault_inline(uintptr_t address, bool write) {
    int cancel_state;
    inline_outcome outcome = INLINE_FOREIGN;
    /* The calls below are cancellation points: a thread that left through one would leave its page locked. */
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_state);
    for (int i = 0; i < POOLS_MAX && outcome == INLINE_FOREIGN; i++) {
        uswap_pool *pool = pool_enter(i);
        if (!pool)
            continue;
        if (pool->inlines.uffd >= 0 && pool->owner_pid == getpid())
            outcome = serve_in(pool, address, write);
        pool_leave(i);
    }
    pthread_setcancelstate(cancel_state, NULL);
    return outcome;
}
