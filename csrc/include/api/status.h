/*
 * status.h - what a function answers, and the error it fills in.
 */

/* One place in Python (src/uswap/_errors.py) turns these into exceptions. */
typedef enum {
    USWAP_OK = 0,
    USWAP_E_INVALID = -1,     /* a bad argument: detail says which and why                            ValueError      */
    USWAP_E_NO_MEMORY = -2,   /* no swap space, metadata or address space for this                    MemoryError     */
    USWAP_E_UNSUPPORTED = -3, /* the kernel or a container refuses what is needed                     UnsupportedError*/
    USWAP_E_OS = -4,          /* a system call failed: operation, path, os_errno                      OSError         */
    USWAP_E_IN_USE = -5,      /* the swap area is locked by another pool                              SwapAreaError   */
    USWAP_E_NOT_OURS = -6,    /* the path holds somebody's data: refused, not overwritten             SwapAreaError   */
    USWAP_E_SWAP_READ = -7,   /* a slot could not be read back, or its checksum is wrong              SwapError       */
    USWAP_E_CLOSED = -8,      /* the pool or region is closed                                         ClosedError     */
    USWAP_E_FORKED = -9,      /* called in a forked child on the parent's pool                        ForkError       */
    USWAP_E_CORRUPT = -10,    /* uswap_pool_check: an invariant does not hold; detail names it        AssertionError  */
    USWAP_E_BUSY = -11,       /* pinned, locked, or in use: detail says by what                       BlockingIOError */
    USWAP_E_LIMIT = -12       /* the limit is below the minimum or below what is locked               LimitError      */
} uswap_status;

typedef struct {
    int32_t status;     /* a uswap_status                                                              */
    int32_t os_errno;   /* 0 where no system call failed                                               */
    char operation[64]; /* "fallocate", "userfaultfd", ...                                             */
    char path[512];     /* the file concerned, or ""                                                   */
    uint64_t offset;    /* byte offset in the file or region                                           */
    char detail[512];   /* one sentence: what is wrong, and what to do                                 */
} uswap_error;
