/*
 * shared_model.h - the two halves of the test of the shared tables.
 */
#ifndef SHARED_MODEL_H
#define SHARED_MODEL_H

#include "shared/group.h"

#define PAGES 512U
#define WORDS (PAGE_BYTES / sizeof(uint64_t))

/* ---- shared_tables.c ---- */

extern group g;
extern int object_fd;
extern _Atomic uint64_t *expected; /* by page: the version that the last store has made */

uint64_t dice(uint64_t sides);
/* Here a worker may die, or be stopped. */
void step(void);
_Noreturn void die(const char *what, uint64_t page, uint64_t value);

/* ---- shared_model.c ---- */

shared_word *word_of(uint64_t page);
void transfer(bool out, int fd, uint64_t *contents, uint64_t at);
void check_contents(const uint64_t *contents, uint64_t page, const char *where);
/* Whatever can be done to the page as it is. */
void use_page(uint64_t page);

#endif
