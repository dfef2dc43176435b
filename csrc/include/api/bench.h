/*
 * bench.h - the native loops of `uswap bench`.
 */

typedef enum {
    USWAP_ORDER_SEQUENTIAL = 0,
    USWAP_ORDER_BACKWARD = 1,
    USWAP_ORDER_STRIDE = 2,  /* every step-th page; the pages between in further rounds */
    USWAP_ORDER_STREAMS = 3, /* step streams, a page of each in turn                    */
    USWAP_ORDER_RANDOM = 4,
    USWAP_ORDER_ZIPF = 5 /* popularity rank^-exponent; popular pages lie scattered */
} uswap_bench_order;

typedef enum {
    USWAP_ACCESS_FILL = 0, /* writes all words of the page, whatever is there     */
    USWAP_ACCESS_READ = 1, /* reads and checks all words                          */
    USWAP_ACCESS_ADD = 2,  /* the same, and adds 1 to each                        */
    USWAP_ACCESS_TOUCH = 3 /* reads and checks one word                           */
} uswap_bench_access;

/* Accesses first to first + count of a pattern: the same arguments name the same pages, so a run may go on in steps. */
typedef struct {
    uint32_t order;  /* a uswap_bench_order                                    */
    uint32_t access; /* a uswap_bench_access                                   */
    uint64_t step;   /* pages of a stride; number of streams                   */
    double exponent; /* of Zipf; not 1                                         */
    uint64_t seed;
    uint64_t first;
    uint64_t count;
    uint64_t budget_ns; /* ends earlier when so much time is over                 */
} uswap_bench_job;

/* Latencies lie in buckets, eight to each doubling; uswap_bench_bucket_ns says which. */
enum { USWAP_BENCH_BUCKETS = 320 };

typedef struct {
    uint64_t accesses; /* pages, or requests                                      */
    uint64_t elapsed_ns;
    uint64_t wrong; /* accesses that found other contents than were written       */
    uint64_t latency[320];
} uswap_bench_result;

/* Adds to *result. memory: pages * 4096 bytes, any memory. */
void uswap_bench_run(void *memory, uint64_t pages, const uswap_bench_job *job, uswap_bench_result *result);
/* Upper end of a bucket. */
uint64_t uswap_bench_bucket_ns(uint32_t bucket);

/* The disk itself, through the same I/O layer and O_DIRECT: requests of block_pages (1 to 512), depth of them in flight
 * (1 to 256), on the first bytes of a file that has been written in full, for budget_ns. io_kind: a uswap_io_kind.
 * Return: 0, or a negative uswap_status with *err set. Adds to *result; accesses are requests. */
int uswap_bench_disk(const char *path, uint64_t bytes, uint32_t block_pages, uint32_t depth, uint32_t write,
                     uint32_t random, uint32_t io_kind, uint64_t seed, uint64_t budget_ns, uswap_bench_result *result,
                     uswap_error *err);
