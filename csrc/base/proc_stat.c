#define _GNU_SOURCE
#include "base/proc_stat.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* "pid (name) S 1 2 ...": the name may hold anything, spaces and parentheses too. */
#define WORD_OF_NAME 2
#define FOLDER_MAX 32
#define DIGITS_MAX 10
#define STATUS_BYTES 16384

static void read_all(char *text, size_t bytes, const char *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? 0 : read(fd, text, bytes - 1);
    if (fd >= 0)
        close(fd);
    text[MAX_OF(length, (ssize_t)0)] = '\0';
}

/* Return: where the path goes on. */
static char *put_text(char *at, const char *text) {
    size_t length = strlen(text);
    memcpy(at, text, length + 1);
    return at + length;
}

static char *put_number(char *at, uint32_t number) {
    char digits[DIGITS_MAX];
    size_t count = 0;
    do
        digits[count++] = (char)('0' + number % 10);
    while ((number /= 10) > 0);
    while (count > 0)
        *at++ = digits[--count];
    return at;
}

static void read_in(proc_stat *in, const char *folder, uint32_t number) {
    char path[FOLDER_MAX + DIGITS_MAX + sizeof "/stat"];
    put_text(put_number(put_text(path, folder), number), "/stat");
    read_all(in->text, sizeof in->text, path);
}

void proc_stat_of_self(proc_stat *in) {
    read_all(in->text, sizeof in->text, "/proc/self/stat");
}

void proc_stat_of_process(proc_stat *in, uint32_t pid) {
    read_in(in, "/proc/", pid);
}

void proc_stat_of_thread(proc_stat *in, uint32_t tid) {
    read_in(in, "/proc/self/task/", tid);
}

const char *proc_stat_find(const proc_stat *in, proc_stat_word word) {
    const char *at = strrchr(in->text, ')');
    for (int found = WORD_OF_NAME; at && found < (int)word; found++)
        if ((at = strchr(at, ' ')))
            at++;
    return at;
}

static bool number_at(const char *at, uint64_t *number) {
    *number = 0;
    if (!at || *at < '0' || *at > '9')
        return false;
    for (; *at >= '0' && *at <= '9'; at++)
        *number = *number * 10 + (uint64_t)(*at - '0');
    return true;
}

bool proc_stat_number(const proc_stat *in, proc_stat_word word, uint64_t *number) {
    return number_at(proc_stat_find(in, word), number);
}

/* "name:\tvalue" of /proc/.../status. Return: where the value begins, or NULL. */
static const char *status_value(const char *text, const char *name) {
    const char *at = strstr(text, name);
    return at ? at + strlen(name) : NULL;
}

bool proc_thread_is_stopped(uint32_t pid, uint32_t tid, uint64_t *switches) {
    char path[FOLDER_MAX + 2 * DIGITS_MAX + sizeof "/task/status"], text[STATUS_BYTES];
    uint64_t by_itself, by_others;
    put_text(put_number(put_text(put_number(put_text(path, "/proc/"), pid), "/task/"), tid), "/status");
    read_all(text, sizeof text, path);
    const char *state = status_value(text, "\nState:\t");
    if (!state || (*state != 'T' && *state != 't') ||
        !number_at(status_value(text, "\nvoluntary_ctxt_switches:\t"), &by_itself) ||
        !number_at(status_value(text, "\nnonvoluntary_ctxt_switches:\t"), &by_others))
        return false;
    *switches = by_itself + by_others;
    return true;
}
