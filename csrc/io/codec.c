#include "io/codec.h"

#include <errno.h>

int codec_init(codec *c, uswap_codec_kind kind, uint32_t coders) {
    *c = (codec){.coders = coders};
    switch (kind) {
    case USWAP_CODEC_NONE:
        return 0;
    case USWAP_CODEC_AES_128_XTS:
#ifdef USWAP_HAVE_CRYPTO
        return codec_cipher_init(c, coders);
#else
        return -ENOSYS;
#endif
    }
    return -EINVAL;
}

void codec_fini(codec *c) {
    if (c->operations)
        c->operations->fini(c);
    *c = (codec){.operations = NULL};
}
