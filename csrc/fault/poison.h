/*
 * poison.h - pages whose contents are lost: a touch ends the process after one line that says which and why.
 *
 * Owns: these lines, for poisoned pages and for a forked child that touches its parent's regions. The handler is signal.c's.
 */
#ifndef USWAP_FAULT_POISON_H
#define USWAP_FAULT_POISON_H

#include "pool.h"

/* => a touch of the page raises a signal, a system call gets EFAULT; who waits for the page is woken. Context: page locked. */
void poison_map(uswap_pool *pool, int uffd, unsigned char *address);

/* If the address lies in a lost page, or in the memory of a parent, says so in one line on stderr. Context: a signal handler.
 * Return: whether there was anything to say. */
bool poison_last_words(uintptr_t address);

/* Whether a touch that found a lost page may be tried again: the address is in a region of this process, and the page was discarded since (poison_last_words had nothing to
 * say). Not for ever: memory that has failed raises the same signal. Context: a signal handler. */
bool poison_may_be_gone(uintptr_t address);

#endif
