/*
 * probe.c - what this machine can do, found out by doing it (uswap doctor).
 *
 * Every probe works on memory and descriptors of its own and gives them back. None can hang: a thread that waits for a fault
 * to be served is released by unregistering its page.
 */
#define _GNU_SOURCE
#include "base/lock.h"
#include "base/memory.h"
#include "base/status.h"
#include "fault/uffd.h"
#include "io/codec.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>
#ifdef USWAP_HAVE_URING
#include <liburing.h>
#endif

#define FAULT_TIMEOUT_MS 2000
#define PATTERN UINT64_C(0x5157415055534550)

/* Three pages: the one that is looked at, its place outside, and contents for copies. */
typedef struct {
    int uffd;
    unsigned char *page, *place;
    uint64_t *source;
} bench;

static void bench_close(bench *b) {
    if (b->uffd >= 0)
        close(b->uffd);
    memory_unmap(b->page, PAGE_BYTES);
    memory_unmap(b->place, PAGE_BYTES);
    memory_unmap(b->source, PAGE_BYTES);
}

/* Return: 0 or -errno. */
static int bench_open(bench *b, uffd_scope scope, uint64_t features) {
    *b = (bench){.uffd = uffd_open(scope)};
    b->page = memory_map(PAGE_BYTES);
    b->place = memory_map(PAGE_BYTES);
    b->source = memory_map(PAGE_BYTES);
    int status = b->uffd < 0 ? b->uffd : (b->page && b->place && b->source ? 0 : -ENOMEM);
    /* Under mlockall(MCL_FUTURE) mmap has put pages there already; no fault would come. */
    if (status == 0 &&
        (madvise(b->page, PAGE_BYTES, MADV_DONTNEED) != 0 || madvise(b->place, PAGE_BYTES, MADV_DONTNEED) != 0))
        status = -errno;
    uint64_t offered = 0;
    if (status == 0)
        status = uffd_query_features(&offered);
    if (status == 0)
        status = uffd_handshake(b->uffd, offered & features);
    if (status == 0)
        status = uffd_register(b->uffd, b->page, PAGE_BYTES,
                               features & UFFD_FEATURE_PAGEFAULT_FLAG_WP ? UFFD_MISSING | UFFD_WP : UFFD_MISSING);
    if (status == 0)
        status = uffd_register(b->uffd, b->place, PAGE_BYTES, UFFD_MISSING);
    if (status == 0)
        *b->source = PATTERN;
    else
        bench_close(b);
    return status;
}

/* The one message that is expected. Return: 0 or -errno. */
static int await_fault(const bench *b, uint64_t *flags) {
    struct pollfd ready = {.fd = b->uffd, .events = POLLIN};
    struct uffd_msg message;
    if (poll(&ready, 1, FAULT_TIMEOUT_MS) != 1)
        return -ETIMEDOUT;
    if (read(b->uffd, &message, sizeof message) != (ssize_t)sizeof message)
        return -EIO;
    *flags = message.arg.pagefault.flags;
    return message.event == UFFD_EVENT_PAGEFAULT ? 0 : -EPROTO;
}

/* ---- a thread that touches the page ---- */

typedef enum { TOUCH_LOAD, TOUCH_STORE, TOUCH_SYSTEM_CALL } touch_kind;

typedef struct {
    bench *b;
    touch_kind kind;
    uint64_t seen;
    int status;
} toucher;

static void touch_by_system_call(toucher *t) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) {
        t->status = -errno;
        return;
    }
    if (write(ends[1], t->b->page, sizeof t->seen) < 0)
        t->status = -errno;
    else if (read(ends[0], &t->seen, sizeof t->seen) != (ssize_t)sizeof t->seen)
        t->status = -EIO;
    close(ends[0]);
    close(ends[1]);
}

static void *touch(void *argument) {
    toucher *t = argument;
    volatile uint64_t *word = (volatile uint64_t *)(void *)t->b->page;
    if (t->kind == TOUCH_SYSTEM_CALL)
        touch_by_system_call(t);
    else if (t->kind == TOUCH_LOAD)
        t->seen = *word;
    else
        *word = t->seen = PATTERN + 1;
    return NULL;
}

/* Starts the toucher and serves its one fault with serve. On any failure the page is unregistered, which lets the thread go
 * on. Closing alone would not: a child forked meanwhile by another thread holds the descriptor too. */
static int run_touch(bench *b, touch_kind kind, int (*serve)(bench *b, uint64_t flags), uint64_t expected) {
    toucher t = {.b = b, .kind = kind};
    pthread_t thread;
    uint64_t flags = 0;
    int status = -pthread_create(&thread, NULL, touch, &t);
    if (status != 0)
        return status;
    /* A system call that is refused ends at once, and no message comes: the thread then says why. */
    status = await_fault(b, &flags);
    if (status == 0)
        status = serve(b, flags);
    if (status != 0 && uffd_unregister(b->uffd, b->page, PAGE_BYTES) != 0) {
        close(b->uffd);
        b->uffd = -1;
    }
    pthread_join(thread, NULL);
    if (t.status != 0)
        return t.status;
    return status != 0 ? status : (t.seen == expected ? 0 : -EIO);
}

static int serve_copy(bench *b, uint64_t flags) {
    size_t done;
    (void)flags;
    return uffd_copy(b->uffd, b->page, b->source, 1, false, true, &done);
}

static int serve_unprotect(bench *b, uint64_t flags) {
    if (!(flags & UFFD_PAGEFAULT_FLAG_WP))
        return -EPROTO;
    return uffd_write_protect(b->uffd, b->page, 1, false, true);
}

/* ---- the probes ---- */

static int probe_fault(uffd_scope scope, touch_kind kind) {
    bench b;
    int status = bench_open(&b, scope, 0);
    if (status != 0)
        return status;
    status = run_touch(&b, kind, serve_copy, PATTERN);
    bench_close(&b);
    return status;
}

static int probe_write_protect(uffd_scope scope) {
    bench b;
    int status = bench_open(&b, scope, UFFD_FEATURE_PAGEFAULT_FLAG_WP);
    if (status != 0)
        return status;
    status = serve_copy(&b, 0);
    if (status == 0)
        status = uffd_write_protect(b.uffd, b.page, 1, true, false);
    if (status == 0)
        status = run_touch(&b, TOUCH_STORE, serve_unprotect, PATTERN + 1);
    bench_close(&b);
    return status;
}

static int probe_move(uffd_scope scope) {
    bench b;
    size_t done;
    int status = bench_open(&b, scope, UFFD_FEATURE_MOVE);
    if (status != 0)
        return status;
    status = serve_copy(&b, 0);
    if (status == 0)
        status = uffd_move(b.uffd, b.place, b.page, 1, true, &done);
    if (status == 0 && *(uint64_t *)(void *)b.place != PATTERN)
        status = -EIO;
    if (status == 0)
        status = uffd_move(b.uffd, b.page, b.place, 1, true, &done);
    if (status == 0 && *(uint64_t *)(void *)b.page != PATTERN)
        status = -EIO;
    bench_close(&b);
    return status;
}

static int probe_poison(uffd_scope scope) {
    bench b;
    int status = bench_open(&b, scope, UFFD_FEATURE_POISON);
    if (status != 0)
        return status;
    status = uffd_poison(b.uffd, b.page, 1, true);
    bench_close(&b);
    return status;
}

/* A ring can be made where a seccomp filter then refuses io_uring_enter: only a request that came back counts. */
static int probe_uring(void) {
#ifdef USWAP_HAVE_URING
    struct io_uring ring;
    struct io_uring_cqe *done;
    int status = io_uring_queue_init(2, &ring, 0);
    if (status != 0)
        return status;
    io_uring_prep_nop(io_uring_get_sqe(&ring));
    int submitted = io_uring_submit(&ring);
    if (submitted == 1)
        status = io_uring_peek_cqe(&ring, &done); /* a no-op is complete when it is submitted */
    else
        status = submitted < 0 ? submitted : -EIO;
    io_uring_queue_exit(&ring);
    return status;
#else
    return -ENOSYS;
#endif
}

static void probe_codec(uswap_probe *found) {
    codec made;
    found->encrypt_errno = -codec_init(&made, USWAP_CODEC_AES_128_XTS, 1);
    found->key_locked = made.key_locked;
    codec_fini(&made);
}

static int32_t errno_of_open(int descriptor) {
    if (descriptor < 0)
        return -descriptor;
    close(descriptor);
    return 0;
}

EXPORT int uswap_probe_run(uswap_probe *probe, uswap_error *err) {
    (void)err;
    uswap_probe found = {0};
    sigset_t mask;
    signals_block(&mask);
    found.uffd_syscall_errno = errno_of_open(uffd_open_syscall(UFFD_ALL_FAULTS));
    found.uffd_user_only_errno = errno_of_open(uffd_open_syscall(UFFD_USER_ONLY));
    found.uffd_device_errno = errno_of_open(uffd_open_device(UFFD_ALL_FAULTS));
    int opened = uffd_open(UFFD_ALL_FAULTS);
    uffd_scope scope = opened >= 0 ? UFFD_ALL_FAULTS : UFFD_USER_ONLY;
    if (opened >= 0)
        close(opened);
    uffd_query_features(&found.uffd_features);
    found.live_fault_errno = -probe_fault(scope, TOUCH_LOAD);
    found.live_kernel_fault_errno = opened >= 0 ? -probe_fault(scope, TOUCH_SYSTEM_CALL) : -opened;
    found.live_wp_errno = -probe_write_protect(scope);
    found.live_move_errno = -probe_move(scope);
    found.live_poison_errno = -probe_poison(scope);
    found.uring_errno = -probe_uring();
#ifdef USWAP_HAVE_URING
    found.uring_built = 1;
#endif
    struct rlimit limit;
    found.memlock_bytes =
        getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY ? limit.rlim_cur : UINT64_MAX;
    probe_codec(&found);
    signals_restore(&mask);
    *probe = found;
    return 0;
}
