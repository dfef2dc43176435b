/*
 * poison.h - pages whose contents are lost: a touch ends the process after one line that says which and why.
 *
 * Owns: the SIGBUS and SIGSEGV lines, for poisoned pages and for a forked child that touches its parent's regions.
 */
#ifndef USWAP_FAULT_POISON_H
#define USWAP_FAULT_POISON_H

#include "pool.h"

/* => a touch of the page raises a signal, a system call gets EFAULT; who waits for the page is woken. Context: page locked. */
void poison_map(uswap_pool *pool, int uffd, unsigned char *address);

/* Makes sure that our handler is in place for a signal (SIGBUS, SIGSEGV): whoever came first is called after us. */
void poison_arm(int signal_number);

#endif
