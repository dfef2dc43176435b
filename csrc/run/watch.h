/*
 * watch.h - the process that waits for a program, to say what it came to however it ends.
 */
#ifndef USWAP_RUN_WATCH_H
#define USWAP_RUN_WATCH_H

/* Forks. Returns in the child, which goes on with the program, and in this process if there can be no child; else this process keeps board_fd, waits, says what is on the board,
 * and ends as the program does. Context: the only thread; nothing of the program has run. */
void run_watch(int board_fd);

#endif
