/*
 * codec.h - how a page lies in its slot (README, The codec stage).
 *
 * A pool without a codec (kind USWAP_CODEC_NONE) never gets here: its slots hold pages as they are.
 */
#ifndef USWAP_IO_CODEC_H
#define USWAP_IO_CODEC_H

#include "base/base.h"
#include "swap/swap_entry.h"

typedef struct codec codec;

typedef struct {
    const char *name;
    uswap_codec_kind kind;
    /* page and slot: PAGE_BYTES each; the same memory, or none of it: decoding may be in place, encoding never is. coder: a number below codec.coders; one thread at a time uses each.
     * Return: 0 or -errno. Context: any, page locks and signal handlers included: no allocation, no lock, no thread-local storage. */
    int (*encode)(const codec *c, uint32_t coder, swap_entry entry, const void *page, void *slot);
    int (*decode)(const codec *c, uint32_t coder, swap_entry entry, const void *slot, void *page);
    void (*fini)(codec *c);
    /* Whether a forked child is to have its secrets. */
    void (*inherit)(const codec *c, bool inherited);
    /* In that child: they are guarded as they were. */
    void (*inherited)(codec *c);
} codec_operations;

struct codec {
    const codec_operations *operations; /* NULL: none */
    uint32_t coders;
    bool key_locked; /* its secrets are locked in memory */
    void *state;
};

/* Return: 0 or -errno; -ENOSYS: built without it. Context: may allocate. */
int codec_init(codec *c, uswap_codec_kind kind, uint32_t coders);
/* => its secrets are overwritten. */
void codec_fini(codec *c);

#ifdef USWAP_HAVE_CRYPTO
/* AES-128-XTS with a key that nobody keeps. (codec_cipher.c) */
int codec_cipher_init(codec *c, uint32_t coders);
#endif

static inline void codec_inherit(const codec *c, bool inherited) {
    if (c->operations)
        c->operations->inherit(c, inherited);
}

static inline uswap_codec_kind codec_kind(const codec *c) {
    return c->operations ? c->operations->kind : USWAP_CODEC_NONE;
}

#endif
