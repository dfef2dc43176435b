#include "base/base.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void say(const char *text) {
    ssize_t ignored = write(STDERR_FILENO, text, strlen(text));
    (void)ignored;
}

_Noreturn void invariant_failed(const char *invariant, const char *what, const char *file, int line) {
    char digits[12];
    size_t at = sizeof digits - 1;
    digits[at] = '\0';
    for (unsigned rest = (unsigned)line; rest > 0 && at > 0; rest /= 10)
        digits[--at] = (char)('0' + rest % 10);
    say("uswap: invariant ");
    say(invariant);
    say(" does not hold: ");
    say(what);
    say(" (");
    say(file);
    say(":");
    say(digits + at);
    say(")\n");
    abort();
}
