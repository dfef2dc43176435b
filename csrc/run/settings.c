/*
 * settings.c - what `uswap run` has put into the environment (src/uswap/running.py); it goes with every program that this one executes.
 */
#define _GNU_SOURCE
#include "run/run.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

run_settings run_set;

/* A whole number of bytes. Return: false: it is none. */
static bool read_bytes(const char *name, uint64_t *bytes) {
    const char *text = getenv(name);
    if (!text || !*text)
        return true;
    char *end;
    errno = 0;
    *bytes = strtoull(text, &end, 10);
    return errno == 0 && *end == '\0';
}

const char *run_settings_read(void) {
    const char *folder = getenv("USWAP_RUN_SWAP"), *report = getenv("USWAP_RUN_STATS");
    const char *pool = getenv("USWAP_RUN_POOL");
    if (!read_bytes("USWAP_RUN_LIMIT", &run_set.limit_bytes))
        return "USWAP_RUN_LIMIT is no number of bytes";
    if (!read_bytes("USWAP_RUN_SWAP_BYTES", &run_set.swap_bytes))
        return "USWAP_RUN_SWAP_BYTES is no number of bytes";
    if (snprintf(run_set.swap_folder, sizeof run_set.swap_folder, "%s", folder ? folder : "/var/tmp") >=
        (int)sizeof run_set.swap_folder)
        return "the path in USWAP_RUN_SWAP is too long";
    if (snprintf(run_set.pool_folder, sizeof run_set.pool_folder, "%s", pool ? pool : "") >=
        (int)sizeof run_set.pool_folder)
        return "the path in USWAP_RUN_POOL is too long";
    if (pool && *pool && (*pool != '/' || strrchr(pool, '/') == pool))
        return "USWAP_RUN_POOL is no path of a folder in another";
    run_set.report = report && strcmp(report, "1") == 0;
    return NULL;
}

const char *run_size_text(uint64_t bytes, char text[32]) {
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    double value = (double)bytes;
    int unit = 0;
    for (; value >= 1024 && unit < 4; unit++)
        value /= 1024;
    snprintf(text, 32, unit == 0 ? "%.0f %s" : "%.1f %s", value, units[unit]);
    return text;
}
