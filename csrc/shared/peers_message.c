#define _GNU_SOURCE
#include "shared/peers_message.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

uint64_t peer_layout(void) {
    return (uint64_t)sizeof(commons_header) << 32 | (uint64_t)sizeof(member_entry) << 16 |
           (uint64_t)(sizeof(shared_frame) + sizeof(shared_slot)) << 8 | PEER_VERSION;
}

peer_request peer_request_of(peer_kind kind, member_id self, uint32_t subject) {
    return (peer_request){.magic = PEER_MAGIC,
                          .version = PEER_VERSION,
                          .layout = peer_layout(),
                          .kind = kind,
                          .pid = (uint32_t)getpid(),
                          .member = self.value,
                          .subject = subject};
}

/* Room for a control message with all descriptors that there can be. */
typedef union {
    struct cmsghdr header;
    unsigned char bytes[CMSG_SPACE(PEER_FDS_MAX * sizeof(int))];
} control_room;

int peer_send(int socket, const void *message, size_t bytes, const peer_fds *fds) {
    control_room control;
    struct iovec piece = {.iov_base = (void *)(uintptr_t)message, .iov_len = bytes};
    struct msghdr header = {.msg_iov = &piece, .msg_iovlen = 1};
    if (fds && fds->count > 0) {
        memset(&control, 0, sizeof control);
        header.msg_control = control.bytes;
        header.msg_controllen = CMSG_SPACE(fds->count * sizeof(int));
        struct cmsghdr *part = CMSG_FIRSTHDR(&header);
        part->cmsg_level = SOL_SOCKET;
        part->cmsg_type = SCM_RIGHTS;
        part->cmsg_len = CMSG_LEN(fds->count * sizeof(int));
        memcpy(CMSG_DATA(part), fds->fd, fds->count * sizeof(int));
    }
    ssize_t sent = sendmsg(socket, &header, MSG_DONTWAIT | MSG_NOSIGNAL);
    return sent == (ssize_t)bytes ? 0 : sent < 0 ? -errno : -EPROTO;
}

/* The descriptors that have come, all of them, so that none is left open by mistake. */
static void gather(struct msghdr *header, peer_fds *fds) {
    for (struct cmsghdr *part = CMSG_FIRSTHDR(header); part; part = CMSG_NXTHDR(header, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count && fds->count < PEER_FDS_MAX; i++)
            memcpy(&fds->fd[fds->count++], CMSG_DATA(part) + i * sizeof(int), sizeof(int));
    }
}

int peer_receive(int socket, void *message, size_t bytes, peer_fds *fds) {
    control_room control;
    struct iovec piece = {.iov_base = message, .iov_len = bytes};
    struct msghdr header = {
        .msg_iov = &piece, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control};
    fds->count = 0;
    ssize_t got = recvmsg(socket, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (got < 0)
        return errno == EWOULDBLOCK ? -EAGAIN : -errno;
    gather(&header, fds);
    if (got == (ssize_t)bytes && !(header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)))
        return 0;
    peer_fds_close(fds);
    return got == 0                        ? -EPIPE
           : header.msg_flags & MSG_CTRUNC ? -EMFILE
                                           : -EPROTO; /* there is room for all of them in the message */
}

void peer_fds_close(peer_fds *fds) {
    for (uint32_t i = 0; i < fds->count; i++)
        if (fds->fd[i] >= 0)
            close(fds->fd[i]);
    fds->count = 0;
}

int peer_fds_take(peer_fds *fds, uint32_t index) {
    int fd = index < fds->count ? fds->fd[index] : -1;
    if (fd >= 0)
        fds->fd[index] = -1;
    return fd;
}
