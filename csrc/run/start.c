/*
 * start.c - before main: the pool of this process, from which all large memory comes from then on.
 */
#define _GNU_SOURCE
#include "base/memory.h"
#include "pool.h"
#include "run/board.h"
#include "run/run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* Below that a program has hardly begun when there is no swap left. */
#define LEAST_SWAP_BYTES ((uint64_t)16 << 20)

uswap_pool *run_pool;

void run_say(const char *what, const char *why) {
    char line[1200];
    int length = snprintf(line, sizeof line, "uswap run: %s%s%s\n", what, why ? ": " : "", why ? why : "");
    ssize_t written = write(STDERR_FILENO, line, (size_t)MIN_OF(length, (int)sizeof line - 1));
    (void)written;
}

void run_refuse(const char *what, const char *why) {
    run_say(what, why);
    _exit(2);
}

/* No process may write files beyond that (RLIMIT_FSIZE): what is promised must be less. */
static uint64_t swap_bytes(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY)
        return run_set.swap_bytes;
    if (limit.rlim_cur < LEAST_SWAP_BYTES)
        run_refuse("files may not grow to 16 MiB here (see ulimit -f), and a swap file is one", NULL);
    uint64_t most = limit.rlim_cur & ~(uint64_t)(PAGE_BYTES - 1);
    return run_set.swap_bytes ? MIN_OF(run_set.swap_bytes, most) : most;
}

/* What limits of the process's own may have to do with it. */
static const char *why(uswap_error *err) {
    size_t length = strlen(err->detail);
    size_t room = sizeof err->detail - length;
    if (memory_address_share(1) != SIZE_MAX)
        snprintf(err->detail + length, room, " (its addresses are limited: see ulimit -v)");
    else if (memory_data_share(1) != SIZE_MAX)
        snprintf(err->detail + length, room, " (its data is limited: see ulimit -d)");
    return err->detail;
}

static uswap_pool *make_pool(void) {
    uswap_options options;
    uswap_pool *pool;
    uswap_area_info area;
    uswap_error err = {.status = USWAP_OK};
    uswap_options_init(&options);
    options.limit_bytes = run_set.limit_bytes;
    options.fault_mode = USWAP_FAULTS_THREAD;
    uint64_t most = swap_bytes();
    if (uswap_pool_create(&options, &pool, &err) != 0)
        run_refuse("no memory can be managed here", why(&err));
    if (uswap_pool_swapon(pool, run_set.swap_folder, 1, most, 0, &area, &err) != 0)
        run_refuse("there is no swap", why(&err));
    return pool;
}

__attribute__((constructor)) static void start(void) {
    const char *wrong = run_settings_read();
    run_threads_begin();
    if (wrong)
        run_refuse(wrong, NULL);
    const char *libraries = getenv("LD_PRELOAD");
    if (run_set.limit_bytes > 0 && libraries && strstr(libraries, "/vgpreload_"))
        run_refuse("valgrind has no userfaultfd for the programs in it", "run valgrind without uswap");
    if (run_set.limit_bytes == 0) {
        run_fork_handlers_release();
        return;
    }
    uswap_error err = {.status = USWAP_OK};
    run_inside = 1;
    run_descriptors_at_fork();
    run_descriptors_raise();
    run_board_begin();
    run_libc_begin();
    run_exec_begin();
    run_pool = run_set.pool_folder[0] ? run_join(make_pool) : make_pool();
    if (run_spaces_open(&err) != 0)
        run_refuse("no addresses can be managed here", why(&err));
    run_at_fork();
    run_fork_handlers_release();
    run_report_begin();
    run_descriptors_restore();
    process_pool = run_pool;
    run_inside = 0;
}
