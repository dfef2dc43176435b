#include "base/findings.h"

#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>

void findings_add(findings *found, const char *invariant, const char *format, ...) {
    if (found->failed)
        return;
    char text[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    error_set(found->err, USWAP_E_CORRUPT, 0, "check", NULL, "%s does not hold: %s", invariant, text);
    found->failed = true;
}
