/*
 * findings.h - what a check of the invariants says: the first one that does not hold.
 */
#ifndef USWAP_BASE_FINDINGS_H
#define USWAP_BASE_FINDINGS_H

#include "base/base.h"

typedef struct {
    uswap_error *err; /* may be NULL */
    bool failed;
} findings;

/* Says that the invariant does not hold, and why, as printf does; nothing if one was found before: the first says most. */
__attribute__((format(printf, 3, 4))) void findings_add(findings *found, const char *invariant, const char *format,
                                                        ...);

#endif
