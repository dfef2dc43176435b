/*
 * pieces.h - ranges of addresses that lie partly in a space: what the program asks for goes to each piece's own owner, from the first on, as the kernel goes through mappings.
 */
#ifndef USWAP_RUN_PIECES_H
#define USWAP_RUN_PIECES_H

#include "run/space.h"

/* The bytes from at on, before end, that are all managed, or all not. Return: where they end. */
uintptr_t run_space_piece(uintptr_t at, uintptr_t end, bool *managed);

/* The result of a call by pieces: managed and kernels are expressions with start and length, and say 0, or -1 with errno, which ends it. */
#define BY_PIECES(address, bytes, managed, kernels)                                                                    \
    ({                                                                                                                 \
        uintptr_t at_ = (uintptr_t)(address), end_ = at_ + (bytes);                                                    \
        int piece_status_;                                                                                             \
        do {                                                                                                           \
            bool ours_ = false;                                                                                        \
            uintptr_t next_ = end_ > at_ ? run_space_piece(at_, end_, &ours_) : end_;                                  \
            void *start = (void *)at_;                                                                                 \
            size_t length = next_ - at_;                                                                               \
            piece_status_ = ours_ ? MANAGED(managed) : (kernels);                                                      \
            at_ = next_;                                                                                               \
        } while (piece_status_ == 0 && at_ < end_);                                                                    \
        piece_status_;                                                                                                 \
    })

/* mmap with MAP_FIXED of a range that is not all managed. */
void *run_map_pieces(void *address, size_t bytes, int protection, int flags, int fd, off_t offset);

/* mremap of a mapping that is the kernel's and smaller than those that are managed, to a size from which on they are. Return: false: it is none of ours, the
 * kernel is to do it; else *result, with errno. */
bool run_remap_small(void *address, size_t bytes, size_t new_bytes, int flags, void *target, void **result);

#endif
