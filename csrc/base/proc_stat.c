#define _GNU_SOURCE
#include "base/proc_stat.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* "pid (name) S 1 2 ...": the name may hold anything, spaces and parentheses too. */
#define WORD_OF_NAME 2
#define FOLDER_MAX 32
#define DIGITS_MAX 10

static void read_all(proc_stat *in, const char *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? 0 : read(fd, in->text, sizeof in->text - 1);
    if (fd >= 0)
        close(fd);
    in->text[MAX_OF(length, (ssize_t)0)] = '\0';
}

static void read_in(proc_stat *in, const char *folder, uint32_t number) {
    char path[FOLDER_MAX + DIGITS_MAX + sizeof "/stat"], digits[DIGITS_MAX];
    size_t at = strlen(folder), count = 0;
    memcpy(path, folder, at);
    do
        digits[count++] = (char)('0' + number % 10);
    while ((number /= 10) > 0);
    while (count > 0)
        path[at++] = digits[--count];
    memcpy(path + at, "/stat", sizeof "/stat");
    read_all(in, path);
}

void proc_stat_of_self(proc_stat *in) {
    read_all(in, "/proc/self/stat");
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

bool proc_stat_number(const proc_stat *in, proc_stat_word word, uint64_t *number) {
    const char *at = proc_stat_find(in, word);
    *number = 0;
    if (!at || *at < '0' || *at > '9')
        return false;
    for (; *at >= '0' && *at <= '9'; at++)
        *number = *number * 10 + (uint64_t)(*at - '0');
    return true;
}
