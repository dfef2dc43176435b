/*
 * fault.h - the answer to one fault, by the page's state (README, "A fault meets").
 *
 * Owns: the decision. Called by the fault thread for messages, and by threads that bring in a page themselves (bring_in.c).
 */
#ifndef USWAP_FAULT_FAULT_H
#define USWAP_FAULT_FAULT_H

#include "pool.h"

typedef enum {
    FAULT_DONE,     /* served */
    FAULT_READING,  /* a read that will serve it is on its way: the caller's own, or somebody else's */
    FAULT_NO_FRAME, /* to be tried again when there are frames */
    FAULT_AGAIN,    /* to be tried again soon: the kernel or the I/O queue was busy */
    FAULT_GONE      /* there is no memory at that address any more */
} fault_result;

/* What is known of a fault: bits. */
typedef enum {
    FAULT_WRITE = 1,  /* it is a store's, as far as is known: a page that is sealed may then be written */
    FAULT_PATIENT = 2 /* it has not waited for long: FAULT_NO_FRAME rather than a page alone where a block should be */
} fault_how;

/* For how long a fault is patient: some times what it takes to write a block. */
#define FAULT_PATIENCE_NS UINT64_C(5000000)

/* Context: in the gate, no page locked. Reads it starts may still be growing: context_submit. */
fault_result fault_serve(context *ctx, region *r, size_t page, unsigned how);

#endif
