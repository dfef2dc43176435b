/*
 * start.c - before main: the pool of this process, from which all large memory comes from then on.
 */
#define _GNU_SOURCE
#include "pool.h"
#include "run/board.h"
#include "run/run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

static uswap_pool *make_pool(void) {
    uswap_options options;
    uswap_pool *pool;
    uswap_area_info area;
    uswap_error err = {.status = USWAP_OK};
    uswap_options_init(&options);
    options.limit_bytes = run_set.limit_bytes;
    options.fault_mode = USWAP_FAULTS_THREAD;
    if (uswap_pool_create(&options, &pool, &err) != 0)
        run_refuse("no memory can be managed here", err.detail);
    if (uswap_pool_swapon(pool, run_set.swap_folder, 1, run_set.swap_bytes, 0, &area, &err) != 0)
        run_refuse("there is no swap", err.detail);
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
        run_refuse("no addresses can be managed here", err.detail);
    run_at_fork();
    run_fork_handlers_release();
    run_report_begin();
    run_descriptors_restore();
    process_pool = run_pool;
    run_inside = 0;
}
