/*
 * failpoint.h - failpoints and sync points (csrc/README.md lists the names).
 */

typedef enum {
    USWAP_FAIL_OFF = 0,
    USWAP_FAIL_ERROR = 1, /* the step fails with os_errno = argument                                      */
    USWAP_FAIL_DELAY = 2, /* the thread sleeps argument microseconds                                      */
    USWAP_FAIL_STOP = 3,  /* sync point: the thread waits there until uswap_syncpoint_release             */
    USWAP_FAIL_KILL = 4,  /* SIGKILL to the process                                                       */
    USWAP_FAIL_FLIP = 5,  /* a bit of the data at hand is flipped (where there is data)                   */
    USWAP_FAIL_FREEZE = 6 /* SIGSTOP to the process */
} uswap_fail_action;

/* 1 if the core was built with failpoints. */
int uswap_failpoints_built(void);
/* nth: fires at the nth hit from now (1 = next) and, if every = 1, at each hit after it. */
int uswap_failpoint_set(const char *name, uint32_t action, int64_t argument, uint64_t nth, int every, uswap_error *err);
/* The same at each hit, but only where the step is that page's: page_in.one, page_in.hash, page_out.one. */
int uswap_failpoint_set_page(const char *name, uint32_t action, int64_t argument, uint64_t region, uint64_t page,
                             uswap_error *err);
/* => hits counted since the failpoint was last set. */
int64_t uswap_failpoint_hits(const char *name, uswap_error *err);
/* => 1 when a thread is held at the sync point, 0 when the time was over. */
int uswap_syncpoint_wait(const char *name, uint64_t timeout_ns, uswap_error *err);
int uswap_syncpoint_release(const char *name, uswap_error *err);
void uswap_failpoints_reset(void);
/* The i-th name, or NULL past the last. */
const char *uswap_failpoint_name(uint32_t index);
