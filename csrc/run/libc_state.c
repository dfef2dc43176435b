/*
 * libc_state.c - what libc allocates for itself and looks into within fork, between the handlers: it lies in the private heap.
 *
 * While the core is still nobody brings in a page. In that time libc's fork looks, in the parent, into the state of its name services, and in the child at
 * each open stream, whose lock it makes new. Threads that the core starts then look at the loader's list of libraries: for that, heap.c asks who calls (is_private).
 */
#define _GNU_SOURCE
#include "run/run.h"

#include <errno.h>
#include <grp.h>
#include <limits.h>
#include <link.h>
#include <printf.h>
#include <stdio.h>
#include <string.h>

/* glibc's <nss.h>. */
int __nss_configure_lookup(const char *database, const char *services) __attribute__((weak));

uintptr_t run_loader_base, run_loader_bytes;

static int note_loader(struct dl_phdr_info *library, size_t size, void *unused) {
    (void)size, (void)unused;
    if (library->dlpi_addr != _r_debug.r_ldbase)
        return 0;
    for (int i = 0; i < library->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &library->dlpi_phdr[i];
        if (part->p_type == PT_LOAD)
            run_loader_bytes = MAX_OF(run_loader_bytes, part->p_vaddr + part->p_memsz);
    }
    run_loader_base = library->dlpi_addr;
    return 1;
}

/* Context: run_inside. The name services' state is allocated when the first of them is asked for; this asks, and then changes nothing, since '[' is no list of services. */
void run_libc_begin(void) {
    dl_iterate_phdr(note_loader, NULL);
    if (__nss_configure_lookup)
        __nss_configure_lookup("publickey", "[");
}

/* ---- streams ---- */

/* A function of libc that makes a stream, unless own is one. */
#define MAKES_STREAM(name, parameters, arguments, own)                                                                 \
    EXPORT FILE *name parameters {                                                                                     \
        static FILE *(*libc)parameters;                                                                                \
        if (!libc)                                                                                                     \
            run_look_up(#name, &libc);                                                                                 \
        run_inside++;                                                                                                  \
        FILE *stream = own;                                                                                            \
        if (!stream)                                                                                                   \
            stream = libc arguments;                                                                                   \
        run_inside--;                                                                                                  \
        return stream;                                                                                                 \
    }

MAKES_STREAM(fopen, (const char *path, const char *mode), (path, mode), run_open_stat(path, mode))
MAKES_STREAM(fopen64, (const char *path, const char *mode), (path, mode), run_open_stat(path, mode))
MAKES_STREAM(fdopen, (int fd, const char *mode), (fd, mode), NULL)
MAKES_STREAM(fmemopen, (void *memory, size_t bytes, const char *mode), (memory, bytes, mode), NULL)
MAKES_STREAM(fopencookie, (void *cookie, const char *mode, cookie_io_functions_t calls), (cookie, mode, calls), NULL)
MAKES_STREAM(open_memstream, (char **block, size_t *bytes), (block, bytes), NULL)
MAKES_STREAM(tmpfile, (void), (), NULL)
MAKES_STREAM(tmpfile64, (void), (), NULL)

/* ---- what printf is told of: libquadmath tells it, say. From then on each printf looks into these tables, also the runtime's within fork ---- */

RUN_PRIVATE_CALL(int, register_printf_specifier,
                 (int specifier, printf_function *print, printf_arginfo_size_function *size), (specifier, print, size))
RUN_PRIVATE_CALL(int, register_printf_function,
                 (int specifier, printf_function *print, printf_arginfo_function *arguments),
                 (specifier, print, arguments))
RUN_PRIVATE_CALL(int, register_printf_modifier, (const wchar_t *text), (text))
RUN_PRIVATE_CALL(int, register_printf_type, (printf_va_arg_function * take), (take))

/* ---- groups ---- */

/* libc has every thread make the system call, the runtime's too: what they look at must need no fault. */
EXPORT int setgroups(size_t count, const gid_t *list) {
    static int (*libc)(size_t, const gid_t *);
    if (!libc)
        run_look_up("setgroups", &libc);
    gid_t *copy = count > 0 && count <= NGROUPS_MAX && list ? run_private_malloc(count * sizeof *list) : NULL;
    if (!copy)
        return libc(count, list); /* nothing to look at, or too many, which is refused before anybody looks */
    memcpy(copy, list, count * sizeof *list);
    int status = libc(count, copy), error = errno;
    run_private_free(copy);
    errno = error;
    return status;
}

RUN_PRIVATE_CALL(int, initgroups, (const char *user, gid_t group), (user, group))
