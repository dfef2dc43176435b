"""What a signal handler does comes at a place where the interpreter looks for signals: at the start of a function
of Python's, and after the call of one of C's. Here something is done at each such place of a call, one after the
other."""

from __future__ import annotations

import opcode
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

_CALLS = {number for name, number in opcode.opmap.items() if name.startswith("CALL")}


class SignalPlace:
    """action is called at the place of that number, from 0 on, in code of uswap's within the with block.

    Attributes:
        reached: whether there was such a place.
        where: file, function and line, for messages.
    """

    def __init__(self, number: int, action: Callable[[], object]) -> None:
        self._left = number
        self._action = action
        self._calling: set[FrameType] = set()
        self.reached = False
        self.where = ""

    def __enter__(self) -> SignalPlace:
        sys.settrace(self._enters)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)
        self._calling.clear()

    def _enters(self, frame: FrameType, *_: object) -> Any:
        name = frame.f_code.co_filename
        if "/uswap/" not in name and "/contextlib" not in name:
            return None
        if frame.f_back is not None:
            self._calling.discard(frame.f_back)
        frame.f_trace_opcodes = True
        self._come_by(frame)
        return self._steps

    def _steps(self, frame: FrameType, event: str, _: object) -> Any:
        if event == "opcode":
            if frame in self._calling:
                self._calling.discard(frame)
                self._come_by(frame)
            if frame.f_code.co_code[frame.f_lasti] in _CALLS:
                self._calling.add(frame)
        elif event == "return":
            self._calling.discard(frame)
        return self._steps

    def _come_by(self, frame: FrameType) -> None:
        self._left -= 1
        if self._left == -1:
            self.reached = True
            self.where = f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name}"
            self._action()


def interrupt() -> None:
    raise KeyboardInterrupt


def each_place(stride: int, action: Callable[[], object] = interrupt) -> Iterator[SignalPlace]:
    """One for every stride-th place, up to the first that is not reached."""
    number = 0
    while True:
        place = SignalPlace(number, action)
        yield place
        if not place.reached:
            break
        number += stride
