/*
 * sites.h - who has asked for which managed addresses, and how long was waited for them: for the report.
 */
#ifndef USWAP_RUN_SITES_H
#define USWAP_RUN_SITES_H

#include "run/space.h"

/* Only blocks from this size on are anybody's in particular. */
#define SITE_LEAST_BYTES ((size_t)1 << 20)

/* => waits in the space are noted by address. */
void run_sites_open(space *s);
/* In the child of a fork: its parent's waits are not its own. */
void run_sites_forget_waits(void);
/* These bytes are for who called from there. */
void run_sites_note(const void *address, size_t bytes, const void *caller);
/* The places that were waited for longest, a line each, as text. Return: its length. */
size_t run_sites_report(char *text, size_t bytes);

#endif
