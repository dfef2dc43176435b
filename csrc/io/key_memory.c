#define _GNU_SOURCE
#include "io/key_memory.h"

#include "base/failpoint.h"
#include "base/memory.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define ALIGNMENT ((size_t)16)

int key_memory_init(key_memory *memory, size_t bytes) {
    *memory = (key_memory){.bytes = bytes, .base = memory_map(bytes)}; /* not inherited by forks */
    if (!memory->base)
        return -ENOMEM;
    if (madvise(memory->base, bytes, MADV_DONTDUMP) != 0) {
        int status = -errno;
        memory_unmap(memory->base, bytes);
        memory->base = NULL;
        return status;
    }
    memory->locked = mlock(memory->base, bytes) == 0; /* RLIMIT_MEMLOCK may refuse */
    return 0;
}

void key_memory_fini(key_memory *memory) {
    if (!memory->base)
        return;
    explicit_bzero(memory->base, memory->bytes);
    FAILPOINT(key_wiped);
    memory_unmap(memory->base, memory->bytes);
    *memory = (key_memory){.base = NULL};
}

void *key_memory_take(key_memory *memory, size_t bytes) {
    size_t rounded = (bytes + ALIGNMENT - 1) & ~(ALIGNMENT - 1);
    if (rounded < bytes || rounded > memory->bytes - memory->used)
        return NULL;
    void *taken = memory->base + memory->used;
    memory->used += rounded;
    return taken;
}

#ifdef USWAP_HAVE_CRYPTO
#include <openssl/crypto.h>
#include <stdlib.h>

static key_memory *current;

/* Before each allocation, of either kind: it tells them apart when they are freed. */
typedef struct {
    size_t bytes;
    bool is_key;
} header;

_Static_assert(sizeof(header) == ALIGNMENT, "what follows a header is aligned as it is");

static header *header_of(void *address) {
    return (header *)address - 1;
}

static void *take(size_t bytes, const char *file, int line) {
    (void)file, (void)line;
    header *head = NULL;
    if (bytes == 0 || bytes > SIZE_MAX - sizeof *head)
        return NULL;
    head = current ? key_memory_take(current, sizeof *head + bytes) : malloc(sizeof *head + bytes);
    if (!head)
        return NULL;
    *head = (header){.bytes = bytes, .is_key = current != NULL};
    return head + 1;
}

static void give(void *address, const char *file, int line) {
    (void)file, (void)line;
    if (!address)
        return;
    header *head = header_of(address);
    if (head->is_key)
        explicit_bzero(address, head->bytes); /* its place comes back with all of the memory */
    else
        free(head);
}

static void *take_other(void *address, size_t bytes, const char *file, int line) {
    if (!address)
        return take(bytes, file, line);
    if (bytes == 0) {
        give(address, file, line);
        return NULL;
    }
    void *other = take(bytes, file, line);
    if (other) {
        size_t before = header_of(address)->bytes;
        memcpy(other, address, MIN_OF(before, bytes));
        give(address, file, line);
    }
    return other;
}

int key_memory_adopt_libcrypto(void) {
    return CRYPTO_set_mem_functions(take, take_other, give) == 1 ? 0 : -EBUSY;
}

void key_memory_use(key_memory *memory) {
    current = memory;
}
#endif
