/*
 * uswap_api.h - every declaration the outside may use, and nothing else.
 *
 * Owns: the C API. Included by C, and read by cffi's cdef (src/uswap/_ffi_build.py), so the two cannot drift.
 * Therefore the parts in api/ have no preprocessor lines and no inline functions, only what pycparser reads; they are included here, in this order.
 *
 * Contracts common to all functions:
 *   => return 0 or a count on success, a negative uswap_status on failure; *err (may be NULL) then says what failed;
 *   => out-parameters are untouched on failure;
 *   => all are thread-safe unless they say otherwise; none calls back; none prints;
 *   => a forked child has its parent's pools, with its private regions as they were at the fork. Where that cannot be (the error says why) every
 *      function on the pool returns USWAP_E_FORKED and changes nothing.
 * Sizes are in bytes where the name says _bytes, in pages of 4096 bytes where it says _pages.
 */
#ifndef USWAP_API_H
#define USWAP_API_H

typedef struct uswap_pool uswap_pool;

/* Each uses what is above it. */
/* clang-format off */
#include "api/status.h"
#include "api/pool.h"
#include "api/policy.h"
#include "api/trace.h"
#include "api/region.h"
#include "api/heap.h"
#include "api/group.h"
#include "api/failpoint.h"
#include "api/machine.h"
#include "api/bench.h"
/* clang-format on */

#endif
