/*
 * locale.c - locales lie in the private heap: each thread that starts looks into the present one (ctype), also those that the child of a fork starts while
 * nobody can bring in a page.
 */
#define _GNU_SOURCE
#include "run/run.h"

#include <locale.h>

RUN_PRIVATE_CALL(char *, setlocale, (int category, const char *name), (category, name))
RUN_PRIVATE_CALL(locale_t, newlocale, (int mask, const char *name, locale_t on), (mask, name, on))
RUN_PRIVATE_CALL(locale_t, duplocale, (locale_t from), (from))
