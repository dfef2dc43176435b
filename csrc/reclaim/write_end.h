/*
 * write_end.h - a write has ended: the frame is dropped, kept as inactive, or goes back to its page.
 */
#ifndef USWAP_RECLAIM_WRITE_END_H
#define USWAP_RECLAIM_WRITE_END_H

#include "pool.h"

/* Context: no page locked. */
void write_end(context *ctx, io_request *request);

#endif
