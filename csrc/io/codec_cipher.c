/*
 * codec_cipher.c - AES-128-XTS by libcrypto, with a key that lives as long as the pool.
 *
 * Each coder has a cipher context for each direction, made beforehand: to encode is to set the tweak and run, which neither allocates
 * nor locks. The key itself is forgotten as soon as the contexts have their key schedules.
 */
#ifdef USWAP_HAVE_CRYPTO
#define _GNU_SOURCE
#include "io/codec.h"

#include "base/failpoint.h"
#include "base/lock.h"
#include "base/memory.h"
#include "io/key_memory.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>

/* Two keys of 128 bits: one for the data, one for the tweak. Longer ones cost speed (README), and these nobody can search for either. */
#define KEY_BYTES 32
#define TWEAK_BYTES 16
/* For a coder: two cipher contexts with their key schedules take some 2 KiB. */
#define KEY_MEMORY_EACH PAGE_BYTES

typedef struct {
    EVP_CIPHER_CTX *encrypt;
    EVP_CIPHER_CTX *decrypt;
} coder;

typedef struct {
    key_memory memory;
    coder *coders;
} cipher_state;

/* Everything in libcrypto that allocates or frees happens under this lock: pools may be made and destroyed by several threads. */
static small_lock library_lock;
static EVP_CIPHER *cipher; /* l: fetched once, for good */

static EVP_CIPHER_CTX *make_context(const unsigned char *key, int encrypt) {
    EVP_CIPHER_CTX *made = EVP_CIPHER_CTX_new();
    if (made && EVP_CipherInit_ex(made, cipher, NULL, key, NULL, encrypt) == 1)
        return made;
    EVP_CIPHER_CTX_free(made);
    return NULL;
}

/* What libcrypto allocates once, at the first use of something, must not lie in the memory of the pool that comes first. */
static bool try_out(void) {
    static const unsigned char key[KEY_BYTES] = {1}; /* the halves must differ */
    EVP_CIPHER_CTX *encrypt = make_context(key, 1), *decrypt = make_context(key, 0);
    bool made = encrypt && decrypt;
    EVP_CIPHER_CTX_free(encrypt);
    EVP_CIPHER_CTX_free(decrypt);
    return made;
}

/* No configuration file, and no exit handler: pages are encrypted until the last thread has ended. */
static int open_library(void) {
    static bool tried;
    if (!tried) {
        tried = true;
        if (key_memory_adopt_libcrypto() == 0 &&
            OPENSSL_init_crypto(OPENSSL_INIT_NO_ATEXIT | OPENSSL_INIT_NO_LOAD_CONFIG, NULL) == 1)
            cipher = EVP_CIPHER_fetch(NULL, "AES-128-XTS", NULL);
        if (cipher && !try_out())
            cipher = NULL;
    }
    return cipher ? 0 : -ENOSYS;
}

static int make_coders(codec *c, cipher_state *state) {
    unsigned char *key = key_memory_take(&state->memory, KEY_BYTES);
    if (!key || getrandom(key, KEY_BYTES, 0) != KEY_BYTES)
        return -EIO;
    int status = 0;
    key_memory_use(&state->memory);
    for (uint32_t i = 0; i < c->coders && status == 0; i++) {
        state->coders[i].encrypt = make_context(key, 1);
        state->coders[i].decrypt = make_context(key, 0);
        status = state->coders[i].encrypt && state->coders[i].decrypt ? 0 : -ENOMEM;
    }
    key_memory_use(NULL);
    explicit_bzero(key, KEY_BYTES);
    return status;
}

static size_t coders_bytes(const codec *c) {
    return c->coders * sizeof(coder);
}

static void cipher_fini(codec *c) {
    cipher_state *state = c->state;
    small_lock_acquire(&library_lock);
    for (uint32_t i = 0; state->coders && i < c->coders; i++) {
        EVP_CIPHER_CTX_free(state->coders[i].encrypt);
        EVP_CIPHER_CTX_free(state->coders[i].decrypt);
    }
    small_lock_release(&library_lock);
    key_memory_fini(&state->memory);
    memory_unmap(state->coders, coders_bytes(c));
    memory_unmap(state, sizeof *state);
}

/* The tweak is the swap entry: the same page encrypts differently in every slot. */
static int run(EVP_CIPHER_CTX *context, swap_entry entry, const void *from, void *to) {
    unsigned char tweak[TWEAK_BYTES] = {0};
    int done = 0;
    for (unsigned i = 0; i < sizeof entry.value; i++)
        tweak[i] = (unsigned char)(entry.value >> (8 * i));
    bool right = EVP_CipherInit_ex(context, NULL, NULL, NULL, tweak, -1) == 1 &&
                 EVP_CipherUpdate(context, to, &done, from, (int)PAGE_BYTES) == 1 && done == (int)PAGE_BYTES;
    return right ? 0 : -EIO;
}

static int cipher_encode(const codec *c, uint32_t number, swap_entry entry, const void *page, void *slot) {
    int status = FAILPOINT(codec_encode);
    return status ? status : run(((const cipher_state *)c->state)->coders[number].encrypt, entry, page, slot);
}

static int cipher_decode(const codec *c, uint32_t number, swap_entry entry, const void *slot, void *page) {
    int status = FAILPOINT(codec_decode);
    return status ? status : run(((const cipher_state *)c->state)->coders[number].decrypt, entry, slot, page);
}

static void cipher_inherit(const codec *c, bool inherited) {
    const cipher_state *state = c->state;
    memory_inherit(state->coders, coders_bytes(c), inherited);
    memory_inherit(state->memory.base, state->memory.bytes, inherited);
    memory_inherit(c->state, sizeof *state, inherited);
}

static void cipher_inherited(codec *c) {
    cipher_state *state = c->state;
    c->key_locked = state->memory.locked = mlock(state->memory.base, state->memory.bytes) == 0;
}

static const codec_operations operations = {
    .name = "aes-128-xts",
    .kind = USWAP_CODEC_AES_128_XTS,
    .encode = cipher_encode,
    .decode = cipher_decode,
    .fini = cipher_fini,
    .inherit = cipher_inherit,
    .inherited = cipher_inherited,
};

int codec_cipher_init(codec *c, uint32_t coders) {
    cipher_state *state = memory_map(sizeof *state);
    if (!state)
        return -ENOMEM;
    *c = (codec){.operations = &operations, .coders = coders, .state = state};
    state->coders = memory_map(coders_bytes(c));
    int status = state->coders ? key_memory_init(&state->memory, coders * KEY_MEMORY_EACH) : -ENOMEM;
    if (status == 0) {
        small_lock_acquire(&library_lock);
        status = open_library();
        if (status == 0)
            status = make_coders(c, state);
        small_lock_release(&library_lock);
    }
    c->key_locked = state->memory.locked;
    if (status != 0)
        codec_fini(c);
    return status;
}
#endif
typedef int codec_cipher_translation_unit; /* without libcrypto the file is empty, which ISO C forbids */
