"""Threads that do one job each at a time, and are watched: done, held, or hanging."""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from typing import Any

# While steps of the core are held, a job is given this long to end or to come to rest; how long decides nothing but
# the order in which steps happen.
SETTLE_SECONDS = 5.0
_LOOK_SECONDS = 0.001
_LOOKS_AT_REST = 2


class HangError(AssertionError):
    """A thread has not come back in time: a wake is missing, or a deadlock."""


class Task:
    """A job in a thread; ends with a result or an error."""

    def __init__(self, what: str, job: Callable[[], Any]) -> None:
        self.what = what
        self._job = job
        self._done = threading.Event()
        self.result: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        """The job."""
        try:
            self.result = self._job()
        except BaseException as error:
            self.error = error
        self._done.set()

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self._done.is_set()

    def wait_briefly(self, seconds: float) -> bool:
        """Whether it has ended within that time."""
        return self._done.wait(seconds)

    def wait(self, seconds: float) -> None:
        """Until it has ended. Raises HangError."""
        if not self._done.wait(seconds):
            raise HangError(f"{self.what} has not come back within {seconds:g} s\n{where_threads_are()}")


class Worker:
    """A daemon thread with a queue of tasks."""

    def __init__(self, number: int) -> None:
        self.task: Task | None = None
        self._queue: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"uswap-fuzz-{number}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (task := self._queue.get()) is not None:
            task.run()

    @property
    def free(self) -> bool:
        """Whether it has nothing to do."""
        return self.task is None or self.task.done

    def start(self, task: Task) -> None:
        """Gives it a job; it must be free."""
        self.task = task
        self._queue.put(task)

    def end(self) -> None:
        """Lets it end, when it can."""
        self._queue.put(None)


class Crew:
    """Some workers. One that hangs is left alone for good: replace the crew then."""

    def __init__(self, size: int) -> None:
        self._workers = [Worker(number) for number in range(size)]

    def free_worker(self, number: int) -> Worker | None:
        """The worker of that number, or the next one that is free; None: all are busy."""
        count = len(self._workers)
        turn = (self._workers[(number + step) % count] for step in range(count))
        return next((worker for worker in turn if worker.free), None)

    @property
    def free(self) -> bool:
        """Whether all are."""
        return all(worker.free for worker in self._workers)

    def end(self) -> None:
        """Lets those that can end."""
        for worker in self._workers:
            worker.end()


def settle(task: Task, processes: Iterable[int] = ()) -> bool:
    """Waits until the task has ended, or every other thread of this process and of those is asleep (held, waiting
    for what is held, or idle), or a moment has passed. => whether it has ended.

    It makes the order of steps the same again when a program is run again; nothing else depends on it."""
    deadline = time.monotonic() + SETTLE_SECONDS
    pids = [os.getpid(), *processes]
    at_rest = 0
    while not task.wait_briefly(_LOOK_SECONDS) and at_rest < _LOOKS_AT_REST and time.monotonic() < deadline:
        at_rest = at_rest + 1 if all(_asleep(pid) for pid in pids) else 0
    return task.done


def _asleep(pid: int) -> bool:
    mine = str(threading.get_native_id())
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            if thread != mine and _state(f"/proc/{pid}/task/{thread}/stat") not in "STZ":
                return False
    return True


def _state(path: str) -> str:
    try:
        with open(path, "rb", buffering=0) as file:
            return chr(file.read(512).rpartition(b") ")[2][0])
    except (OSError, IndexError):
        return "Z"


def where_threads_are() -> str:
    """The Python stack of each thread, and where in the kernel it waits; for messages."""
    frames = sys._current_frames()
    lines = []
    for thread in threading.enumerate():
        if thread is threading.current_thread() or thread.ident is None:
            continue
        place = ""
        with contextlib.suppress(OSError), open(f"/proc/self/task/{thread.native_id}/wchan") as file:
            place = file.read().strip()
        lines.append(f"thread {thread.name} (in the kernel: {place or 'not known'})")
        frame = frames.get(thread.ident)
        if frame is not None:
            lines.append("".join(traceback.format_stack(frame, limit=4)).rstrip())
    return "\n".join(lines)
