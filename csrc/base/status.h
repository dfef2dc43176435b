/*
 * status.h - filling in uswap_error.
 *
 * Functions of the core return 0 or a count, or a negative uswap_status after error_set; lower layers return -errno.
 */
#ifndef USWAP_BASE_STATUS_H
#define USWAP_BASE_STATUS_H

#include "base/base.h"

/* Fills *err (if not NULL) and returns status. detail is a printf format. Context: not on the fault path (formats). */
__attribute__((format(printf, 6, 7))) int error_set(uswap_error *err, uswap_status status, int os_errno,
                                                    const char *operation, const char *path, const char *detail, ...);

/* Why a page is lost, in words for a message: os_errno is that of the read which failed, or EBADMSG: something was read, and its checksum is wrong.
 * Async-signal-safe. */
const char *lost_because(int os_errno);

/* As strerror, in English: without what libc has allocated for the language, which may be swapped out where this is asked (the child of a fork). */
const char *error_text(int os_errno);

#endif
