/*
 * pool_uffd.c - the pool's userfaultfd: what this user may have, what this kernel can do, and what follows for faults and transports.
 */
#include "base/status.h"
#include "fault/uffd.h"
#include "pool.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

int pool_refuse_uffd(uswap_error *err, int os_errno) {
    const char *cause = os_errno == ENOSYS
                            ? "this kernel has no userfaultfd, or a seccomp filter hides it"
                            : "userfaultfd is not permitted to this user (or a seccomp filter refuses it)";
    return error_set(
        err, USWAP_E_UNSUPPORTED, os_errno, "userfaultfd", NULL,
        "%s: %s. Allow it with 'sudo sysctl -w vm.unprivileged_userfaultfd=1' or, from kernel 6.1 on, 'sudo setfacl "
        "-m u:%u:rw /dev/userfaultfd'; in a container pass '--device /dev/userfaultfd' or a seccomp profile that "
        "allows userfaultfd. 'uswap doctor' says more",
        cause, error_text(os_errno), (unsigned)getuid());
}

/* For all faults, if that is permitted; else for those of user code, which serve inline regions. Return: descriptor or -errno. */
static int open_permitted(uswap_pool *pool) {
    int uffd = uffd_open(UFFD_ALL_FAULTS);
    bool refused = uffd == -EPERM || uffd == -EACCES;
    if (!refused || pool->options.fault_mode == USWAP_FAULTS_THREAD)
        return uffd;
    int by_user = uffd_open(UFFD_USER_ONLY);
    pool->user_mode_only = by_user >= 0;
    return by_user >= 0 ? by_user : uffd; /* the first errno names the cause better */
}

static int check_transport(uswap_pool *pool, uint64_t offered, uswap_error *err) {
    bool can_move = offered & UFFD_FEATURE_MOVE, can_copy = offered & UFFD_FEATURE_PAGEFAULT_FLAG_WP;
    if ((pool->options.transport == USWAP_TRANSPORT_MOVE && !can_move) || !can_copy)
        return error_set(err, USWAP_E_UNSUPPORTED, 0, "userfaultfd", NULL, "this kernel lacks %s: use %s",
                         can_copy ? "UFFDIO_MOVE (6.8)" : "write-protection by userfaultfd (5.7)",
                         can_copy ? "transport=\"auto\"" : "a newer kernel");
    pool->use_move = can_move && pool->options.transport != USWAP_TRANSPORT_COPY;
    pool->has_poison = offered & UFFD_FEATURE_POISON;
    pool->self_mem_fd = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
    if (pool->self_mem_fd < 0 && !pool->use_move)
        return error_set(err, USWAP_E_UNSUPPORTED, errno, "open", "/proc/self/mem",
                         "the copy transport reads pages through /proc/self/mem, which cannot be opened: %s",
                         error_text(errno));
    return 0;
}

int pool_open_uffd(uswap_pool *pool, uswap_error *err) {
    uint64_t offered = 0;
    int status = uffd_query_features(&offered);
    if (status == 0)
        status = pool->uffd = open_permitted(pool);
    if (status < 0)
        return pool_refuse_uffd(err, -status);
    pool->uffd_features =
        offered & (UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_MOVE | UFFD_FEATURE_POISON | UFFD_FEATURE_THREAD_ID);
    status = uffd_handshake(pool->uffd, pool->uffd_features);
    if (status != 0)
        return pool_refuse_uffd(err, -status);
    if (pool->options.fault_mode == USWAP_FAULTS_DEFAULT)
        pool->options.fault_mode = pool->user_mode_only ? USWAP_FAULTS_INLINE : USWAP_FAULTS_THREAD;
    return check_transport(pool, offered, err);
}
