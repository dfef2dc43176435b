#define _GNU_SOURCE
#include "base/status.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void copy_text(char *to, size_t capacity, const char *from) {
    size_t length = from ? strlen(from) : 0;
    if (length >= capacity)
        length = capacity - 1;
    if (length > 0)
        memcpy(to, from, length);
    to[length] = '\0';
}

int error_set(uswap_error *err, uswap_status status, int os_errno, const char *operation, const char *path,
              const char *detail, ...) {
    if (err) {
        va_list arguments;
        memset(err, 0, sizeof *err);
        err->status = status;
        err->os_errno = os_errno;
        copy_text(err->operation, sizeof err->operation, operation);
        copy_text(err->path, sizeof err->path, path);
        va_start(arguments, detail);
        vsnprintf(err->detail, sizeof err->detail, detail, arguments);
        va_end(arguments);
    }
    return status;
}

const char *lost_because(int os_errno) {
    return os_errno == EBADMSG ? "what its slot holds is damaged: the checksum is wrong" : "its slot could not be read";
}

#ifdef __GLIBC__
/* glibc 2.32. */
const char *strerrordesc_np(int os_errno) __attribute__((weak));
#endif

const char *error_text(int os_errno) {
#ifdef __GLIBC__
    const char *text = strerrordesc_np ? strerrordesc_np(os_errno) : strerror(os_errno);
    return text ? text : "unknown error";
#else
    return strerror(os_errno);
#endif
}
