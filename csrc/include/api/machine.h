/*
 * machine.h - what this machine can do (uswap doctor).
 */

typedef struct {
    int32_t uffd_syscall_errno;      /* 0: userfaultfd(2) works for kernel faults too                           */
    int32_t uffd_user_only_errno;    /* 0: userfaultfd(2) works with UFFD_USER_MODE_ONLY                        */
    int32_t uffd_device_errno;       /* 0: /dev/userfaultfd works                                               */
    uint64_t uffd_features;          /* bits of struct uffdio_api.features                                      */
    int32_t live_fault_errno;        /* 0: a missing page was served to a thread                                */
    int32_t live_kernel_fault_errno; /* 0: the same inside a system call                                    */
    int32_t live_wp_errno;           /* 0: a write to a write-protected page was reported, and went on          */
    int32_t live_move_errno;         /* 0: a page went out and back by UFFDIO_MOVE with its contents            */
    int32_t live_poison_errno;       /* 0: UFFDIO_POISON is there                                               */
    int32_t uring_errno;             /* 0: io_uring works; ENOSYS also when built without liburing              */
    int32_t uring_built;
    uint64_t memlock_bytes; /* RLIMIT_MEMLOCK; UINT64_MAX: no limit                                    */
    int32_t encrypt_errno;  /* 0: slots can be encrypted; ENOSYS: built without libcrypto              */
    int32_t key_locked;     /* 1: the keys of that were locked in memory                               */
} uswap_probe;

int uswap_probe_run(uswap_probe *probe, uswap_error *err);

/* Opens and closes a swap area as uswap_pool_swapon would, and times reads there: the median latency of one 4 KiB O_DIRECT
 * read in nanoseconds, over a file of 16 MiB written first. directory must exist. */
int uswap_probe_disk(const char *directory, uint64_t *read_4k_ns, uint64_t *write_1m_ns, uint32_t *notes,
                     uswap_error *err);

/* "0.1.0 (liburing 2.3, failpoints, debug)" */
const char *uswap_build_info(void);
