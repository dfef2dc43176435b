#define _GNU_SOURCE
#include "shared/peers_socket.h"

#include "base/lock.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#define NAME_BYTES 48
#define PREFIX "member-"

/* No stdio: the peer thread names sockets too. Return: where the digits end. */
static char *put_number(char *at, uint64_t number) {
    char digits[24];
    int count = 0;
    do
        digits[count++] = (char)('0' + number % 10);
    while ((number /= 10) > 0);
    while (count > 0)
        *at++ = digits[--count];
    return at;
}

static char *put_text(char *at, const char *text) {
    while (*text)
        *at++ = *text++;
    return at;
}

static void name_of(peer_socket socket, char name[NAME_BYTES]) {
    char *at = put_number(put_text(name, PREFIX), socket.id.value);
    *at++ = '-';
    *put_number(at, socket.pid) = '\0';
}

/* Return: false if the name is not exactly that of a member's socket. */
static bool parse_name(const char *name, peer_socket *socket) {
    char again[NAME_BYTES], *end;
    if (strncmp(name, PREFIX, sizeof PREFIX - 1) != 0)
        return false;
    unsigned long id = strtoul(name + sizeof PREFIX - 1, &end, 10);
    if (*end != '-')
        return false;
    *socket = (peer_socket){.id = {(uint16_t)id}, .pid = (uint32_t)strtoul(end + 1, NULL, 10)};
    name_of(*socket, again);
    return strcmp(name, again) == 0;
}

/* ---- the folder ---- */

int peer_folder_open(const char *path) {
    struct stat status;
    int folder = open(path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (folder < 0)
        return errno == ENOTDIR || errno == ELOOP || errno == EACCES ? -EPERM : -errno;
    if (fstat(folder, &status) != 0 || status.st_uid != geteuid() || (status.st_mode & 077) != 0) {
        close(folder);
        return -EPERM;
    }
    return folder;
}

bool peer_folder_gone(int folder) {
    struct stat status;
    return fstat(folder, &status) != 0 || status.st_nlink == 0;
}

struct entry { /* linux_dirent64 */
    uint64_t inode;
    int64_t next;
    unsigned short bytes;
    unsigned char type;
    char name[];
};

int peer_sockets(const char *path, peer_socket *sockets, uint32_t capacity) {
    _Alignas(8) char buffer[4096];
    uint32_t count = 0;
    int folder = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (folder < 0)
        return -errno;
    long bytes;
    while ((bytes = syscall(SYS_getdents64, folder, buffer, sizeof buffer)) > 0)
        for (long at = 0; at < bytes;) {
            const struct entry *found = (const struct entry *)(const void *)(buffer + at);
            if (count < capacity && parse_name(found->name, &sockets[count]))
                count++;
            at += found->bytes;
        }
    int status = bytes < 0 ? -errno : (int)count;
    close(folder);
    return status;
}

void peer_socket_remove(int folder, peer_socket socket) {
    char name[NAME_BYTES];
    name_of(socket, name);
    unlinkat(folder, name, 0);
}

int peer_sockets_clean(int folder, const char *path) {
    peer_socket sockets[PEER_SOCKETS_MAX];
    int count = peer_sockets(path, sockets, PEER_SOCKETS_MAX), left = 0;
    for (int i = 0; i < count; i++) {
        int connection = peer_connect(folder, sockets[i]);
        if (connection == -ECONNREFUSED)
            peer_socket_remove(folder, sockets[i]);
        else if (connection != -ENOENT)
            left++;
        if (connection >= 0)
            close(connection);
    }
    return count < 0 ? count : left;
}

/* ---- sockets ---- */

/* By way of the folder's descriptor: the path that was checked, and short. */
static struct sockaddr_un address_of(int folder, peer_socket socket) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char *at = put_number(put_text(address.sun_path, "/proc/self/fd/"), (uint64_t)folder);
    *at++ = '/';
    name_of(socket, at);
    return address;
}

/* A socket refuses connections until it listens, as those of the dead do, and a last member that leaves just then takes it away for one of
 * these: so it gets its name only when it listens. */
int peer_listen(int folder, peer_socket socket_name) {
    int listening = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (listening < 0)
        return -errno;
    struct sockaddr_un address = address_of(folder, socket_name), before = address;
    put_text(before.sun_path + strlen(before.sun_path), ".new");
    int status = 0;
    unlink(before.sun_path);
    fchmod(listening, 0600); /* what bind makes has this mode, less the umask */
    if (bind(listening, (const struct sockaddr *)&before, sizeof before) != 0 || chmod(before.sun_path, 0600) != 0 ||
        listen(listening, PEER_BACKLOG) != 0 || rename(before.sun_path, address.sun_path) != 0)
        status = -errno;
    if (status == 0)
        return listening;
    unlink(before.sun_path);
    close(listening);
    return status;
}

static bool is_of_this_user(int connection, uint32_t *pid) {
    struct ucred other;
    socklen_t bytes = sizeof other;
    if (getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &other, &bytes) != 0 || other.uid != geteuid())
        return false;
    *pid = (uint32_t)other.pid;
    return true;
}

int peer_accept(int listening, uint32_t *pid) {
    int connection = accept4(listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (connection < 0)
        return errno == EWOULDBLOCK || errno == ECONNABORTED ? -EAGAIN : -errno;
    if (is_of_this_user(connection, pid))
        return connection;
    close(connection);
    return -EPERM;
}

int peer_connect(int folder, peer_socket socket_name) {
    int connection = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (connection < 0)
        return -errno;
    struct sockaddr_un address = address_of(folder, socket_name);
    uint32_t pid;
    int status = 0;
    if (connect(connection, (const struct sockaddr *)&address, sizeof address) != 0)
        status = -errno;
    else if (!is_of_this_user(connection, &pid))
        status = -EPERM;
    if (status == 0)
        return connection;
    close(connection);
    return status;
}

/* ---- a request and its answer ---- */

static int await_answer(int connection, peer_answer *answer, peer_fds *fds, uint64_t deadline_ns,
                        void (*meanwhile)(void *), void *argument) {
    struct pollfd ready = {.fd = connection, .events = POLLIN};
    for (;;) {
        int status = peer_receive(connection, answer, sizeof *answer, fds);
        if (status != -EAGAIN)
            return status;
        uint64_t now = clock_now_ns();
        if (now >= deadline_ns)
            return -ETIMEDOUT;
        poll(&ready, 1, meanwhile ? 1 : (int)((deadline_ns - now) / 1000000 + 1));
        if (meanwhile)
            meanwhile(argument);
    }
}

static int check_answer(const peer_answer *answer, const peer_fds *fds) {
    if (answer->magic != PEER_MAGIC || answer->version != PEER_VERSION || answer->layout != peer_layout())
        return -EPROTO;
    if (answer->status != 0)
        return answer->status < 0 ? answer->status : -EPROTO;
    return answer->members <= MEMBERS_MAX && answer->members <= fds->count ? 0 : -EPROTO;
}

int peer_ask(int folder, peer_socket socket, const peer_request *request, const peer_fds *with, peer_answer *answer,
             peer_fds *fds, uint64_t deadline_ns, void (*meanwhile)(void *), void *argument) {
    fds->count = 0;
    int connection = peer_connect(folder, socket);
    if (connection < 0)
        return connection == -EAGAIN ? -ETIMEDOUT : connection; /* its backlog is full: it is stopped */
    int status = peer_send(connection, request, sizeof *request, with);
    if (status == 0)
        status = await_answer(connection, answer, fds, deadline_ns, meanwhile, argument);
    close(connection);
    if (status == 0 && (status = check_answer(answer, fds)) != 0)
        peer_fds_close(fds);
    return status;
}
