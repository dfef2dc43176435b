/*
 * group_fork.c - a member's forked child: what it has of its parent's membership ends; if a place was taken for it, it has one of its own
 * (README, Fork in a named pool).
 */
#define _GNU_SOURCE
#include "base/memory.h"
#include "pool.h"
#include "shared/group.h"
#include "shared/peers.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static void close_one(int *fd) {
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void occupy(const shared_region *r) {
    mmap(r->base, r->pages << PAGE_SHIFT, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE,
         -1, 0);
}

static bool is_objects_file(int folder, const char *number) {
    char name[sizeof "/memfd:" OBJECT_FILE_NAME];
    ssize_t length = readlinkat(folder, number, name, sizeof name - 1);
    name[MAX_OF(length, (ssize_t)0)] = '\0';
    return strcmp(name, "/memfd:" OBJECT_FILE_NAME) == 0;
}

/* Another thread of the parent may just have had the file of an object, which nothing names here; a child would keep its memory. No memory is allocated. */
static bool close_objects_files(void) {
    union {
        struct dirent64 first;
        char bytes[4096];
    } room;
    int folder = open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ssize_t got;
    while (folder >= 0 && (got = syscall(SYS_getdents64, folder, room.bytes, sizeof room.bytes)) > 0)
        for (ssize_t at = 0; at < got;) {
            const struct dirent64 *entry = (const struct dirent64 *)(const void *)(room.bytes + at);
            at += entry->d_reclen;
            if (is_objects_file(folder, entry->d_name))
                close(atoi(entry->d_name));
        }
    if (folder >= 0)
        close(folder);
    return folder >= 0;
}

/* Regions, and what was open of others. */
static void end_regions(group *g) {
    bool closed = atomic_load(&g->has_files) && close_objects_files();
    for (uint32_t i = 0; i < OBJECTS_MAX; i++)
        if (atomic_load(&g->regions[i].live)) {
            occupy(&g->regions[i]);
            if (closed) /* those numbers may be another pool's by now, which has come before this one */
                g->regions[i].fd = -1;
            close_one(&g->regions[i].fd);
        }
    for (unsigned i = 0; i < MEMBERS_MAX; i++) {
        int uffd = atomic_exchange(&g->peers[i].uffd, -1);
        if (uffd >= 0 && uffd != g->uffd)
            close(uffd);
        close_one(&g->peers[i].pidfd);
    }
    peers_in_child(g);
}

static void end_membership(group *g) {
    end_regions(g);
    int *const own[] = {&g->uffd,          &g->swap_fd,     &g->folder_fd, &g->peer_wake_fd,
                        &g->share_wake_fd, &g->out_wake_fd, &g->listen_fd, &g->commons.fd};
    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++)
        close_one(own[i]);
    g->life_lock = NULL; /* not in this memory */
}

void group_in_child(const uswap_pool *pool) {
    group *g = atomic_load(&pool->group);
    if (g)
        end_membership(g);
}

int group_inherit(uswap_pool *pool) {
    group *parents = atomic_load(&pool->group), *g = group_new(pool);
    if (!g)
        return -ENOMEM;
    g->born = true;
    g->self = parents->self;           /* since it was claimed */
    g->life_lock = parents->life_lock; /* as is this */
    g->commons = parents->commons;
    g->swap_fd = parents->swap_fd;
    g->folder_fd = parents->folder_fd;
    memcpy(g->folder, parents->folder, sizeof g->folder);
    g->barrier_slot = parents->barrier_slot;
    g->map_for_peers = parents->map_for_peers;
    g->sized_bytes = parents->sized_bytes;
    g->floor_chunks = parents->floor_chunks;
    memory_inherit(g->commons.base, g->commons.bytes, false);
    parents->commons = (commons){.fd = -1};
    parents->swap_fd = parents->folder_fd = -1;
    end_membership(parents);
    parents->former = pool->former; /* its regions stay known: who touches them is told (fault/poison.c) */
    pool->former = parents;
    atomic_store(&pool->group, g);
    return 0;
}

/* Whose place is in the table as long as there is the socket; those of the dead go after their places, but nobody listens there. */
static bool is_strangers(const group *g, peer_socket socket) {
    if (member_equal(peer_at(g, member_index(socket.id)), socket.id) && peer_socket_of(g, socket.id).pid == socket.pid)
        return false;
    int connection = peer_connect(g->folder_fd, socket);
    if (connection >= 0)
        close(connection);
    return connection != -ECONNREFUSED && connection != -ENOENT;
}

bool group_is_displaced(const group *g) {
    peer_socket sockets[PEER_SOCKETS_MAX];
    int count = peer_sockets(g->folder, sockets, PEER_SOCKETS_MAX);
    for (int i = 0; i < count; i++)
        if (is_strangers(g, sockets[i]))
            return true;
    return false;
}
