/*
 * group_find.c - a named pool as it is found by who is no member of it (yet): by its folder, and by whoever answers there.
 */
#include "shared/group_find.h"

#include "base/lock.h"
#include "base/proc_stat.h"
#include "base/status.h"

#include <errno.h>
#include <unistd.h>

/* How often members that did not answer are asked again, and how patiently: first all of them briefly, as some may be stopped. */
static const uint64_t hello_patience_ns[] = {20000000, PEER_PATIENCE_NS, 3 * PEER_PATIENCE_NS};
#define HELLO_ROUNDS (sizeof hello_patience_ns / sizeof hello_patience_ns[0])
/* Who is not stopped will answer, when its disk has, or when it gets a processor: it is asked again for so long. */
#define HELLO_BUSY_NS UINT64_C(10000000000)

int group_os_failure(uswap_error *err, const char *operation, const char *path, int status) {
    return error_set(err, status == -ENOMEM ? USWAP_E_NO_MEMORY : USWAP_E_OS, -status, operation, path,
                     "cannot join processes in one pool: %s: %s", operation, error_text(-status));
}

int group_explain(const char *folder, int status, uswap_error *err) {
    switch (status) {
    case -ENOENT:
    case -ECONNREFUSED:
        return error_set(err, USWAP_E_CLOSED, 0, "join", folder, "no living process is in that pool");
    case -EPROTO:
        return error_set(err, USWAP_E_UNSUPPORTED, 0, "join", folder, "the pool is of an incompatible build of uswap");
    case -EPERM:
        return error_set(err, USWAP_E_NOT_OURS, EPERM, "join", folder,
                         "the pool is another user's, or others could enter its folder");
    case -EXDEV:
        return error_set(err, USWAP_E_UNSUPPORTED, 0, "join", folder,
                         "the pool's processes are in another pid namespace: they could not see this one die");
    case -ETIMEDOUT:
        return error_set(err, USWAP_E_BUSY, 0, "join", folder,
                         "no process of the pool answers: they are stopped, or have been busy for too long");
    default:
        return group_os_failure(err, "connect", folder, status);
    }
}

/* Of several who did not help, the one whose reason says most. */
static int weightier(int before, int status) {
    bool gone = status == -ENOENT || status == -ECONNREFUSED || status == -EPIPE || status == -ECONNRESET;
    return gone || (status == -ETIMEDOUT && before != -ENOENT) ? before : status;
}

/* By the kernel's word; false where that is not to be had. */
static bool is_stopped(uint32_t pid) {
    proc_stat stat;
    proc_stat_of_process(&stat, pid);
    const char *state = proc_stat_find(&stat, PROC_STAT_STATE);
    return state && (*state == 'T' || *state == 't');
}

/* Asks each member in turn. *busy: some who did not answer are not stopped. Return: 0: one has answered; else as group_hello. */
static int hello_round(int folder, const char *path, peer_kind kind, uint64_t patience_ns, peer_answer *answer,
                       peer_fds *fds, bool *busy) {
    peer_socket sockets[PEER_SOCKETS_MAX];
    peer_request request = peer_request_of(kind, MEMBER_NONE, 0);
    int count = peer_sockets(path, sockets, PEER_SOCKETS_MAX), result = count < 0 ? count : -ENOENT;
    *busy = false;
    for (int i = 0; i < count; i++) {
        uint64_t deadline = clock_now_ns() + patience_ns;
        int status = peer_ask(folder, sockets[i], &request, NULL, answer, fds, deadline, NULL, NULL);
        if (status == 0 && fds->count >= (kind == PEER_HELLO ? 2U : 1U))
            return 0;
        if (status == 0)
            peer_fds_close(fds);
        *busy |= status == -ETIMEDOUT && !is_stopped(sockets[i].pid);
        result = weightier(result, status == 0 ? -EPROTO : status);
    }
    return result;
}

/* Asks all members for the commons, until one of them has answered. */
int group_hello(int folder, const char *path, peer_kind kind, peer_answer *answer, peer_fds *fds) {
    uint64_t end = clock_now_ns() + HELLO_BUSY_NS;
    for (size_t round = 0;; round++) {
        bool busy;
        uint64_t patience_ns = hello_patience_ns[MIN_OF(round, HELLO_ROUNDS - 1)];
        int result = hello_round(folder, path, kind, patience_ns, answer, fds, &busy);
        if (result != -ETIMEDOUT || (round + 1 >= HELLO_ROUNDS && (!busy || clock_now_ns() > end)))
            return result;
    }
}

int group_look(const char *path, commons *c, uswap_error *err) {
    peer_answer answer;
    peer_fds fds;
    int folder = peer_folder_open(path), status = folder;
    if (status >= 0) {
        status = group_hello(folder, path, PEER_LOOK, &answer, &fds);
        close(folder);
    }
    if (status == 0) {
        status = commons_attach(c, peer_fds_take(&fds, 0));
        peer_fds_close(&fds);
    }
    return status == 0 ? 0 : group_explain(path, status, err);
}

int group_living(const char *path, uswap_error *err) {
    int folder = peer_folder_open(path), status = folder < 0 ? folder : peer_sockets_clean(folder, path);
    if (folder >= 0)
        close(folder);
    return status >= 0 ? status : group_explain(path, status, err);
}
