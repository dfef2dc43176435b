/*
 * shell.c - system and popen: libc's own start a shell with the environment as it is, which may lack what the limit goes along by (after clearenv).
 *
 * The shell that libc starts is then told to set that, and to become the shell that was asked for.
 */
#define _GNU_SOURCE
#include "run/run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char BECOME[] = "exec /bin/sh -c -- ";

/* In single quotes, as a shell takes it. Return: where it ends. */
static char *put_quoted(char *at, const char *text) {
    *at++ = '\'';
    for (; *text; text++)
        at = *text == '\'' ? stpcpy(at, "'\\''") : (*at = *text, at + 1);
    *at++ = '\'';
    return at;
}

static size_t quoted_bytes(const char *text) {
    size_t bytes = 3;
    for (; *text; text++)
        bytes += *text == '\'' ? 4 : 1;
    return bytes;
}

/* "export 'NAME=value' ...; exec /bin/sh -c -- 'command'". Return: NULL: no memory. */
static char *with_settings(const char *command, char *const *environment) {
    size_t bytes = sizeof BECOME + quoted_bytes(command) + sizeof "export; ";
    for (char *const *entry = environment; *entry; entry++)
        bytes += run_exec_is_ours(*entry) ? quoted_bytes(*entry) + 1 : 0;
    char *text = run_private_malloc(bytes), *at = text;
    if (!text)
        return NULL;
    at = stpcpy(at, "export");
    for (char *const *entry = environment; *entry; entry++)
        if (run_exec_is_ours(*entry)) {
            *at++ = ' ';
            at = put_quoted(at, *entry);
        }
    at = stpcpy(stpcpy(at, "; "), BECOME);
    *put_quoted(at, command) = '\0';
    return text;
}

/* Return: NULL: the environment has all, there is no command, or no memory; else to be freed. */
static char *completed(const char *command) {
    char **environment = command ? run_exec_completed(environ) : NULL;
    char *text = environment ? with_settings(command, environment) : NULL;
    run_private_free(environment);
    return text;
}

EXPORT int system(const char *command) {
    static int (*libc)(const char *);
    if (!libc)
        run_look_up("system", &libc);
    char *text = completed(command);
    int status = libc(text ? text : command);
    run_private_free(text);
    return status;
}

EXPORT FILE *popen(const char *command, const char *mode) {
    static FILE *(*libc)(const char *, const char *);
    if (!libc)
        run_look_up("popen", &libc);
    char *text = completed(command);
    run_inside++; /* the stream lies where a fork can look at it (libc_state.c) */
    FILE *stream = libc(text ? text : command, mode);
    run_inside--;
    run_private_free(text);
    return stream;
}
