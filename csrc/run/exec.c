/*
 * exec.c - the limit goes with every program that this one executes, also where it hands over an environment of its own making.
 *
 * Between vfork and exec the memory is the parent's: nothing here allocates, the new environment lies on the stack.
 */
#define _GNU_SOURCE
#include "run/run.h"

#include <alloca.h>
#include <dlfcn.h>
#include <limits.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef AT_EMPTY_PATH
#define AT_EMPTY_PATH 0x1000
#endif

/* What must be in every environment, as it was in ours: "NAME=value". The last one names this library. */
enum { PRELOAD = 6, CARRIED };
static const char *const names[CARRIED] = {"USWAP_RUN_LIMIT", "USWAP_RUN_SWAP", "USWAP_RUN_SWAP_BYTES",
                                           "USWAP_RUN_STATS", "USWAP_RUN_POOL", "USWAP_RUN_BOARD",
                                           "LD_PRELOAD"};
static char carried[CARRIED][PATH_MAX + 64];
/* This library alone, for an environment that names others: "LD_PRELOAD=path". */
static char own[PATH_MAX + 16];

/* libc's own, looked up early: in the child of a vfork is no time for that. */
static struct {
    int (*execvpe)(const char *, char *const *, char *const *);
    int (*posix_spawn)(pid_t *, const char *, const posix_spawn_file_actions_t *, const posix_spawnattr_t *,
                       char *const *, char *const *);
    int (*posix_spawnp)(pid_t *, const char *, const posix_spawn_file_actions_t *, const posix_spawnattr_t *,
                        char *const *, char *const *);
} libc;

static void find_libc(void) {
    run_look_up("posix_spawn", &libc.posix_spawn);
    run_look_up("posix_spawnp", &libc.posix_spawnp);
    run_look_up("execvpe", &libc.execvpe);
}

void run_exec_begin(void) {
    Dl_info info;
    find_libc();
    if (dladdr(own, &info) && info.dli_fname)
        snprintf(own, sizeof own, "%s=%s", names[PRELOAD], info.dli_fname);
    for (int i = 0; i < CARRIED; i++) {
        const char *value = getenv(names[i]);
        if (value)
            snprintf(carried[i], sizeof carried[i], "%s=%s", names[i], value);
    }
}

static bool is_named(const char *entry, const char *name) {
    size_t length = strlen(name);
    return strncmp(entry, name, length) == 0 && entry[length] == '=';
}

static bool has(char *const *environment, int i) {
    for (; environment && *environment; environment++)
        if (is_named(*environment, names[i]))
            return i != PRELOAD || strstr(*environment, RUN_LIBRARY) != NULL;
    return false;
}

static bool lacks(char *const *environment, int i) {
    return run_pool && carried[i][0] && !has(environment, i);
}

static bool is_complete(char *const *environment) {
    for (int i = 0; i < CARRIED; i++)
        if (lacks(environment, i))
            return false;
    return true;
}

/* What the environment has in front of its programs itself: text, "" if nothing. */
static const char *others_in(char *const *environment) {
    for (; environment && *environment; environment++)
        if (is_named(*environment, names[PRELOAD]))
            return *environment + strlen(names[PRELOAD]) + 1;
    return "";
}

static size_t pointers_for(char *const *environment) {
    size_t count = 0;
    while (environment && environment[count])
        count++;
    return count + CARRIED + 1;
}

static size_t room_for(char *const *environment) {
    return pointers_for(environment) * sizeof(char *) + sizeof own + strlen(others_in(environment)) + 1;
}

/* This library, then the others. */
static char *in_front_of(const char *others, char *text) {
    char *end = stpcpy(text, own);
    *end = ':';
    strcpy(end + 1, others);
    return text;
}

/* environment, with what it lacks. Its own libraries stay in front of its programs, behind this one. */
static char **complete(char *const *environment, char **into) {
    bool without_us = lacks(environment, PRELOAD);
    const char *others = others_in(environment);
    size_t count = 0;
    for (char *const *entry = environment; entry && *entry; entry++)
        if (!without_us || !is_named(*entry, names[PRELOAD]))
            into[count++] = *entry;
    for (int i = 0; i < CARRIED; i++)
        if (lacks(environment, i))
            into[count++] = i == PRELOAD && *others && own[0]
                                ? in_front_of(others, (char *)(into + pointers_for(environment)))
                                : carried[i];
    into[count] = NULL;
    return into;
}

char **run_exec_completed(char *const *environment) {
    char **room = is_complete(environment) ? NULL : run_private_malloc(room_for(environment));
    return room ? complete(environment, room) : NULL;
}

bool run_exec_is_ours(const char *entry) {
    for (int i = 0; i < CARRIED; i++)
        if (is_named(entry, names[i]))
            return true;
    return false;
}

/* A macro, because the room lies on the stack of its caller. */
#define COMPLETE(environment)                                                                                          \
    (is_complete(environment) ? (char **)(uintptr_t)(environment)                                                      \
                              : complete((environment), alloca(room_for(environment))))

/* ---- what the program calls ---- */

static int run_execve(const char *path, char *const *arguments, char *const *environment) {
    return (int)syscall(SYS_execve, path, arguments, COMPLETE(environment));
}

EXPORT int execve(const char *path, char *const arguments[], char *const environment[]) {
    return run_execve(path, arguments, environment);
}

EXPORT int execv(const char *path, char *const arguments[]) {
    return run_execve(path, arguments, environ);
}

EXPORT int fexecve(int fd, char *const arguments[], char *const environment[]) {
    return (int)syscall(SYS_execveat, fd, "", arguments, COMPLETE(environment), AT_EMPTY_PATH);
}

EXPORT int execveat(int folder, const char *path, char *const arguments[], char *const environment[], int flags) {
    return (int)syscall(SYS_execveat, folder, path, arguments, COMPLETE(environment), flags);
}

/* By libc's own: the search along PATH, and scripts without a first line that names their interpreter. */
EXPORT int execvpe(const char *file, char *const arguments[], char *const environment[]) {
    if (!libc.execvpe) /* no limit, or a constructor before ours */
        find_libc();
    return libc.execvpe(file, arguments, COMPLETE(environment));
}

EXPORT int execvp(const char *file, char *const arguments[]) {
    return execvpe(file, arguments, environ);
}

EXPORT int posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
                       const posix_spawnattr_t *attributes, char *const arguments[], char *const environment[]) {
    if (!libc.posix_spawn)
        find_libc();
    return libc.posix_spawn(pid, path, actions, attributes, arguments, COMPLETE(environment));
}

EXPORT int posix_spawnp(pid_t *pid, const char *file, const posix_spawn_file_actions_t *actions,
                        const posix_spawnattr_t *attributes, char *const arguments[], char *const environment[]) {
    if (!libc.posix_spawnp)
        find_libc();
    return libc.posix_spawnp(pid, file, actions, attributes, arguments, COMPLETE(environment));
}

/* ---- with the arguments one by one ---- */

static size_t count_arguments(va_list list) {
    size_t count = 1;
    while (va_arg(list, char *))
        count++;
    return count;
}

static void take_arguments(char **into, const char *first, va_list *list) {
    *into++ = (char *)(uintptr_t)first;
    while ((*into++ = va_arg(*list, char *)))
        continue;
}

/* => an array of the arguments behind first, with a NULL at its end, called all; list stands behind that NULL. */
#define ARGUMENTS(all, first, list)                                                                                    \
    va_list list, counted;                                                                                             \
    va_start(list, first);                                                                                             \
    va_copy(counted, list);                                                                                            \
    char **all = alloca((count_arguments(counted) + 1) * sizeof(char *));                                              \
    va_end(counted);                                                                                                   \
    take_arguments(all, first, &list)

EXPORT int execl(const char *path, const char *first, ...) {
    ARGUMENTS(all, first, list);
    va_end(list);
    return run_execve(path, all, environ);
}

EXPORT int execle(const char *path, const char *first, ...) {
    ARGUMENTS(all, first, list);
    char *const *environment = va_arg(list, char *const *);
    va_end(list);
    return run_execve(path, all, environment);
}

EXPORT int execlp(const char *file, const char *first, ...) {
    ARGUMENTS(all, first, list);
    va_end(list);
    return execvpe(file, all, environ);
}
