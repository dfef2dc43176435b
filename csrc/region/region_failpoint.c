/*
 * region_failpoint.c - failpoints of one page: what goes wrong is that page's, also if others are read or written with it.
 */
#include "base/failpoint.h"
#include "region/region.h"

EXPORT int uswap_failpoint_set_page(const char *name, uint32_t action, int64_t argument, uint64_t id, uint64_t page,
                                    uswap_error *err) {
    return failpoint_set_page(name, action, argument, page_ref_in(id, page).value, err);
}
