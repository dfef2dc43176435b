/*
 * report.c - what a process came to: a few lines on standard error when it ends (`uswap run --stats`).
 */
#define _GNU_SOURCE
#include "run/board.h"
#include "run/sites.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int to = -1; /* standard error as it was at the start: programs close theirs */

void run_report_begin(void) {
    if (!run_set.report)
        return;
    for (int i = 0; i < SPACES; i++)
        run_sites_open(&spaces[i]);
    to = run_descriptor_keep(fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3));
}

/* Of all processes together, if they have one. */
static uint64_t limit_of(const uswap_stats *s) {
    uswap_group_info together;
    bool shared = run_set.pool_folder[0] && uswap_group_get_info(run_pool, &together, NULL) == 0;
    return shared ? together.limit_bytes : s->limit_bytes;
}

__attribute__((destructor)) static void report(void) {
    uswap_stats s;
    if (to < 0 || !run_pool || uswap_pool_stats(run_pool, &s, NULL) != 0)
        return;
    char line[4096], limit[32], peak[32], in[32], out[32], swap[32], refused[48];
    int length = snprintf(line, sizeof line,
                          "uswap run: %s[%d]: peak %s of %s; %llu faults, %llu of them from swap; %s in, %s out; %s of "
                          "swap in use; waited %.3f s%s\n",
                          program_invocation_short_name, (int)getpid(), run_size_text(s.peak_resident_bytes, peak),
                          run_size_text(limit_of(&s), limit), (unsigned long long)s.faults,
                          (unsigned long long)s.major_faults, run_size_text(s.pages_in << PAGE_SHIFT, in),
                          run_size_text(s.pages_out << PAGE_SHIFT, out), run_size_text(s.swap_used_bytes, swap),
                          (double)s.stall_ns / 1e9, run_refused_text(run_forks_refused, refused));
    size_t bytes = (size_t)MIN_OF(length, (int)sizeof line - 1);
    bytes += run_sites_report(line + bytes, sizeof line - bytes);
    ssize_t written = write(to, line, bytes);
    (void)written;
    run_board_said();
}
