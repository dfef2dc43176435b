"""StayList: pages in the order in which they came, out of which any may go."""

from __future__ import annotations

from collections import deque

GENERATION_BITS = 10
GENERATION_MASK = (1 << GENERATION_BITS) - 1


class StayList:
    """As the core's rings: a page that goes leaves its entry behind, which is passed over by its generation.

    Attributes:
        generations: page key -> generation, of those that are in it.

    Example:
        >>> pages = StayList()
        >>> for stay in (5 << 10 | 1, 6 << 10, 7 << 10):
        ...     pages.add(stay)
        >>> pages.take(6 << 10), pages.take(5 << 10), len(pages)
        (True, False, 2)
        >>> pages.take_oldest(5) == [5 << 10 | 1, 7 << 10]
        True
    """

    __slots__ = ("_order", "_order_max", "generations")

    def __init__(self) -> None:
        self.generations: dict[int, int] = {}
        self._order: deque[int] = deque()
        self._order_max = 1024

    def __len__(self) -> int:
        return len(self.generations)

    def __contains__(self, stay: int) -> bool:
        return self.generations.get(stay >> GENERATION_BITS) == stay & GENERATION_MASK

    def add(self, stay: int) -> None:
        """At the young end; its page is not in the list."""
        self.generations[stay >> GENERATION_BITS] = stay & GENERATION_MASK
        self._order.append(stay)
        if len(self._order) > self._order_max:
            self._compact()

    def take(self, stay: int) -> bool:
        """Takes it out of the middle; False if it is not there."""
        key = stay >> GENERATION_BITS
        if self.generations.get(key) != stay & GENERATION_MASK:
            return False
        del self.generations[key]
        return True

    def take_oldest(self, count: int) -> list[int]:
        """So many, or all there are."""
        taken = self.leave_order(count)
        for stay in taken:
            del self.generations[stay >> GENERATION_BITS]
        return taken

    def leave_order(self, count: int) -> list[int]:
        """The same, but they stay in the list: only their turn is over."""
        generations, order, left = self.generations, self._order, list[int]()
        while len(left) < count and order:
            stay = order.popleft()
            if generations.get(stay >> GENERATION_BITS) == stay & GENERATION_MASK:
                left.append(stay)
        return left

    def _compact(self) -> None:
        generations = self.generations
        self._order = deque(
            stay for stay in self._order if generations.get(stay >> GENERATION_BITS) == stay & GENERATION_MASK
        )
        self._order_max = max(1024, 2 * len(self._order))
