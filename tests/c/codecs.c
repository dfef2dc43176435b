/*
 * codecs.c - the cipher: what goes in comes out, only where it belongs, by every coder; and key memory.
 */
#include "part.h"

#include "io/codec.h"
#include "io/key_memory.h"

#include <errno.h>
#include <string.h>

#define CODERS 3U

static codec cipher;
static _Alignas(64) unsigned char page[PAGE_BYTES];

static void *code(void *argument) {
    uint32_t coder = (uint32_t)(intptr_t)argument;
    _Alignas(64) unsigned char slot[PAGE_BYTES], back[PAGE_BYTES];
    for (uint64_t at = 1; at < 50; at++) {
        swap_entry entry = swap_entry_make(coder, at);
        CHECK(cipher.operations->encode(&cipher, coder, entry, page, slot) == 0);
        CHECK(memcmp(slot, page, 64) != 0);
        CHECK(cipher.operations->decode(&cipher, coder, entry, slot, back) == 0 &&
              memcmp(back, page, sizeof back) == 0);
        CHECK(cipher.operations->decode(&cipher, coder, swap_entry_after(entry, 1), slot, back) == 0);
        CHECK(memcmp(back, page, sizeof back) != 0);
    }
    return NULL;
}

static void check_key_memory(void) {
    key_memory memory;
    CHECK(key_memory_init(&memory, 3 * PAGE_BYTES) == 0);
    unsigned char *one = key_memory_take(&memory, 100), *two = key_memory_take(&memory, 100);
    CHECK(one && two && two >= one + 100 && (uintptr_t)one % 16 == 0 && (uintptr_t)two % 16 == 0);
    for (int i = 0; i < 100; i++)
        CHECK(one[i] == 0 && two[i] == 0);
    memset(one, 1, 100);
    memset(two, 2, 100);
    CHECK(one[99] == 1);
    CHECK(key_memory_take(&memory, 3 * PAGE_BYTES) == NULL);
    key_memory_fini(&memory);
}

int main(void) {
    check_key_memory();
    CHECK(codec_init(&cipher, (uswap_codec_kind)99, 1) == -EINVAL);
    CHECK(codec_init(&cipher, USWAP_CODEC_NONE, 1) == 0 && codec_kind(&cipher) == USWAP_CODEC_NONE);
    codec_fini(&cipher);
    for (size_t i = 0; i < sizeof page; i++)
        page[i] = (unsigned char)dice(256);
    unsigned char first[PAGE_BYTES] = {0}, second[PAGE_BYTES];
    for (int round = 0; round < 5; round++) {
        CHECK(codec_init(&cipher, USWAP_CODEC_AES_128_XTS, CODERS) == 0);
        CHECK(codec_kind(&cipher) == USWAP_CODEC_AES_128_XTS);
        in_threads(CODERS, code);
        CHECK(cipher.operations->encode(&cipher, 0, swap_entry_make(0, 1), page, second) == 0);
        CHECK(memcmp(first, second, sizeof first) != 0); /* another key each time */
        memcpy(first, second, sizeof first);
        codec_fini(&cipher);
    }
    return 0;
}
