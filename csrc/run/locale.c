/*
 * locale.c - locales lie in the private heap: each thread that starts looks into the present one (ctype), also those that the child of a fork starts while
 * nobody can bring in a page.
 */
#define _GNU_SOURCE
#include "run/run.h"

#include <locale.h>

static char *(*libc_setlocale)(int, const char *);
static locale_t (*libc_newlocale)(int, const char *, locale_t);
static locale_t (*libc_duplocale)(locale_t);

EXPORT char *setlocale(int category, const char *name) {
    if (!libc_setlocale)
        run_look_up("setlocale", &libc_setlocale);
    run_inside++;
    char *result = libc_setlocale(category, name);
    run_inside--;
    return result;
}

EXPORT locale_t newlocale(int mask, const char *name, locale_t on) {
    if (!libc_newlocale)
        run_look_up("newlocale", &libc_newlocale);
    run_inside++;
    locale_t result = libc_newlocale(mask, name, on);
    run_inside--;
    return result;
}

EXPORT locale_t duplocale(locale_t from) {
    if (!libc_duplocale)
        run_look_up("duplocale", &libc_duplocale);
    run_inside++;
    locale_t result = libc_duplocale(from);
    run_inside--;
    return result;
}
