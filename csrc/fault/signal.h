/*
 * signal.h - our handler of SIGBUS (and, for last words, of SIGSEGV), and those that were there before or came later.
 *
 * Owns: the one handler of the process, where it is installed, and the chain to the others: what is not ours is theirs.
 */
#ifndef USWAP_FAULT_SIGNAL_H
#define USWAP_FAULT_SIGNAL_H

/* Makes sure that our handler is the one that is called for the signal. What is found in its place is called after it. */
void signal_arm(int number);
/* The same in a forked child, whose locks may be held by threads that it does not have. */
void signal_arm_in_child(int number);

#endif
