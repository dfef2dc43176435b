/*
 * orders.h - what a policy has ordered and nobody has done yet; and pages that the program has called cold.
 *
 * Owns: the order book. An order is a hint, as an entry of the reclaim ring is: a page that is not there any more, or is locked, is passed
 * over. Whoever needs frames takes its victims from here before it goes by age; so what the policy has prepared is done also while it
 * is late.
 */
#ifndef USWAP_RECLAIM_ORDERS_H
#define USWAP_RECLAIM_ORDERS_H

#include "reclaim/ring.h"

/* EVICT: what is to be dropped next (inactive.c). OUT: of that, what cannot be without more ado. COLD: as soon as frames are short. */
typedef enum { ORDER_EVICT, ORDER_COLD, ORDER_OUT, ORDER_CLEAN, ORDER_AGE, ORDER_AGE_MARKED, ORDER_READ } order_kind;
#define ORDER_KINDS 7

typedef struct {
    reclaim_ring rings[ORDER_KINDS];
} order_book;

/* Return: 0 or -ENOMEM. */
int orders_init(order_book *book);
void orders_fini(order_book *book);
uint64_t orders_bytes(const order_book *book);
/* All that are left are forgotten. */
void orders_clear(order_book *book);
/* One whose pages may leave, the most urgent first; NULL if there is none. */
reclaim_ring *orders_next(order_book *book, order_kind *kind);

#endif
