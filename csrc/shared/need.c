#include "shared/need.h"

/* Fewer near refaults than this say nothing. */
#define RATE_LEAST 8
/* Of its chunks that are in use, whoever gives gives so small a part at a time: the rates are looked at again before the next. */
#define GIVE_SHARE 16

static bool lacks_floor(const need *n) {
    return n->chunks < n->floor;
}

bool need_outweighs(const need *claim, const need *holder) {
    if (lacks_floor(claim))
        return true;
    return claim->rate >= RATE_LEAST &&
           claim->rate * MAX_OF(holder->chunks, UINT64_C(1)) > 2 * holder->rate * MAX_OF(claim->chunks, UINT64_C(1));
}

/* What is asked of anybody, less what is free; and of it, what is asked of self's chunks in use. */
static void add_up(const need *self, const need *others, uint32_t count, uint64_t *lacking, uint64_t *weighty) {
    *lacking = *weighty = 0;
    for (uint32_t i = 0; i < count; i++) {
        const need *other = &others[i];
        uint64_t lacks = lacks_floor(other) ? MAX_OF(other->starved, other->floor - other->chunks) : other->starved;
        *lacking += lacks;
        if (lacks > 0 && need_outweighs(other, self))
            *weighty += lacks_floor(other) ? other->floor - other->chunks : lacks;
    }
}

uint64_t need_to_give(const need *self, const need *others, uint32_t count, uint64_t free) {
    uint64_t lacking, weighty;
    add_up(self, others, count, &lacking, &weighty);
    if (lacking <= free || self->chunks <= self->floor)
        return 0;
    lacking -= free;
    weighty -= MIN_OF(free, weighty);
    uint64_t most = self->chunks - self->floor;
    uint64_t unused = self->starved == 0 ? MIN_OF(self->unused, most) : 0;
    uint64_t idle = MIN_OF(unused, lacking);
    uint64_t used = MIN_OF(MIN_OF(weighty, MAX_OF(self->chunks / GIVE_SHARE, UINT64_C(1))), most);
    return MAX_OF(idle, used);
}

uint64_t need_to_take(const need *self, const need *others, uint32_t count, uint64_t free) {
    uint64_t floor = lacks_floor(self) ? self->floor - self->chunks : 0, rivals = 0;
    bool outweighed = false;
    for (uint32_t i = 0; i < count; i++) {
        bool wants = others[i].starved > 0 || lacks_floor(&others[i]);
        rivals += wants;
        outweighed |= wants && need_outweighs(&others[i], self);
    }
    if (outweighed)
        return MIN_OF(floor, free);
    uint64_t share = MAX_OF(free / (1 + rivals), MIN_OF(free, UINT64_C(1)));
    return MIN_OF(MAX_OF(self->starved, floor), share);
}
