#include "reclaim/orders.h"

/* They grow as they are used. */
#define ORDERS_LEAST 512

int orders_init(order_book *book) {
    int status = 0;
    for (int kind = 0; kind < ORDER_KINDS && status == 0; kind++)
        status = ring_init(&book->rings[kind], ORDERS_LEAST);
    return status;
}

void orders_fini(order_book *book) {
    for (int kind = 0; kind < ORDER_KINDS; kind++)
        if (book->rings[kind].entries)
            ring_fini(&book->rings[kind]);
}

uint64_t orders_bytes(const order_book *book) {
    uint64_t bytes = 0;
    for (int kind = 0; kind < ORDER_KINDS; kind++)
        bytes += book->rings[kind].capacity * sizeof(stay);
    return bytes;
}

void orders_clear(order_book *book) {
    stay dropped[64];
    for (int kind = 0; kind < ORDER_KINDS; kind++)
        while (kind != ORDER_COLD && ring_pop(&book->rings[kind], dropped, 64) > 0) {
        }
}

reclaim_ring *orders_next(order_book *book, order_kind *kind) {
    for (int i = ORDER_COLD; i < ORDER_READ; i++)
        if (ring_length(&book->rings[i]) > 0) {
            *kind = (order_kind)i;
            return &book->rings[i];
        }
    return NULL;
}
