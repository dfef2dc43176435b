"""The core's heap by itself, as NumPy calls it: blocks of all sizes, by threads that run beside each other."""

from __future__ import annotations

import ctypes
import os
import random
import threading
from typing import Any

import numpy as np
import pytest
from _support.forks import child, end_of

import uswap
from uswap._core import ffi, lib
from uswap._heap import Heap

KiB, MiB = 1 << 10, 1 << 20
# On both sides of each boundary: of the small allocator's own, of runs, of large blocks.
SIZES = (
    1,
    16,
    100,
    1000,
    8128,
    8192,
    65 * KiB,
    128 * KiB - 1,
    128 * KiB,
    192 * KiB + 5,
    MiB,
    3 * MiB,
    8 * MiB,
    9 * MiB,
)
SEED = int(os.environ.get("USWAP_HEAP_SEED", "1"))
# 100000 for a long run.
OPERATIONS = int(os.environ.get("USWAP_HEAP_OPERATIONS", "400"))


class Handler(ctypes.Structure):
    """PyDataMem_Handler; its functions are called without the GIL."""

    _fields_ = (
        ("name", ctypes.c_char * 127),
        ("version", ctypes.c_uint8),
        ("ctx", ctypes.c_void_p),
        ("malloc", ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)),
        ("calloc", ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t)),
        ("realloc", ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)),
        ("free", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)),
    )


def handler_of(heap: Heap) -> Any:
    return Handler.from_address(int(ffi.cast("uintptr_t", lib.uswap_heap_numpy_handler(heap.pointer))))


class Block:
    """A block, and what is in it: its first and last bytes, and one byte of each page, say which it is."""

    def __init__(self, address: int, size: int, mark: int) -> None:
        self.address, self.size, self.mark = address, size, mark

    def bytes(self) -> Any:
        return np.frombuffer((ctypes.c_uint8 * self.size).from_address(self.address), dtype="u1")

    def fill(self, start: int = 0) -> None:
        self.bytes()[start::4096] = self.mark
        self.bytes()[-1] = self.mark

    def check(self, size: int) -> None:
        assert (self.bytes()[:size:4096] == self.mark).all(), (self.size, size)


class Worker:
    """One of several threads that make, change and free blocks, also those of the others."""

    def __init__(self, heap: Heap, seed: int, shelf: list[Block], lock: Any) -> None:
        self.handler, self.random, self.shelf, self.lock = handler_of(heap), random.Random(seed), shelf, lock

    def make(self) -> None:
        size, mark = self.random.choice(SIZES), self.random.randrange(1, 256)
        zeroed = self.random.random() < 0.4
        allocate = self.handler.calloc if zeroed else self.handler.malloc
        address = allocate(self.handler.ctx, *((size, 1) if zeroed else (size,)))
        assert address, size
        assert address % (8 if size <= 8 else 16) == 0
        block = Block(address, size, mark)
        if zeroed:
            assert not block.bytes().any(), size
        block.fill()
        with self.lock:
            self.shelf.append(block)

    def take(self) -> Block | None:
        with self.lock:
            return self.shelf.pop(self.random.randrange(len(self.shelf))) if self.shelf else None

    def change(self) -> None:
        block = self.take()
        if block is None:
            return
        size = self.random.choice((*SIZES, block.size + 4096, max(block.size // 2, 1)))
        before, block.size = block.size, size
        block.address = self.handler.realloc(self.handler.ctx, block.address, size)
        assert block.address, size
        block.check(min(before, size))
        block.fill()
        with self.lock:
            self.shelf.append(block)

    def free(self) -> None:
        block = self.take()
        if block is not None:
            block.check(block.size)
            self.handler.free(self.handler.ctx, block.address, 0)

    def run(self, operations: int) -> None:
        for _ in range(operations):
            with self.lock:
                many = len(self.shelf) > 60
            self.random.choice(
                (self.free, self.change) if many else (self.make, self.make, self.change, self.free)
            )()


def run_all(heap: Heap, threads: int, operations: int, shelf: list[Block]) -> None:
    lock = threading.Lock()
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            Worker(heap, SEED * 100 + number, shelf, lock).run(operations)
        except BaseException as error:
            errors.append(error)

    started = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    assert not errors, errors


def empty(heap: Heap, shelf: list[Block]) -> None:
    worker = Worker(heap, 1, shelf, threading.Lock())
    while shelf:
        worker.free()
    assert heap.blocks == 0


@pytest.mark.parametrize("threads", [1, 4])
def test_blocks_keep_their_contents(threads: int, make_pool: Any, transport: str) -> None:
    pool = make_pool(transport=transport)
    heap, shelf = pool._heap.get(), []  # type: ignore[var-annotated]
    run_all(heap, threads, OPERATIONS // threads, shelf)
    pool.check()
    assert heap.blocks == len(shelf)
    empty(heap, shelf)


def test_a_child_goes_on_with_blocks_while_threads_of_the_parent_allocate(make_pool: Any) -> None:
    pool = make_pool()
    heap, shelf, kept = pool._heap.get(), [], []  # type: ignore[var-annotated]
    Worker(heap, SEED, kept, threading.Lock()).run(40)
    beside = threading.Thread(target=run_all, args=(heap, 2, OPERATIONS // 4, shelf))
    beside.start()
    ended = []
    for number in range(5):

        def work(number: int = number) -> None:
            Worker(heap, number, kept, threading.Lock()).run(30)
            while kept:
                Worker(heap, number, kept, threading.Lock()).free()

        ended.append(end_of(child(work)))
    beside.join()
    assert ended == [0] * 5
    empty(heap, kept + shelf)


def test_sizes_that_cannot_be_are_refused(pool: uswap.Pool) -> None:
    handler = handler_of(pool._heap.get())
    for size in (1 << 47, (1 << 64) - 1, (1 << 63) + 5):
        assert handler.malloc(handler.ctx, size) is None
    assert handler.calloc(handler.ctx, 1 << 40, 1 << 40) is None
    block = handler.malloc(handler.ctx, 0)
    assert block
    assert handler.realloc(handler.ctx, block, (1 << 64) - 1) is None
    handler.free(handler.ctx, block, 0)
    handler.free(handler.ctx, None, 0)
    assert pool._heap.get().blocks == 0


def test_many_runs_share_few_regions(pool: uswap.Pool) -> None:
    heap = pool._heap.get()
    handler = handler_of(heap)
    blocks = [handler.malloc(handler.ctx, 200 * KiB) for _ in range(2000)]
    assert all(blocks)
    assert len(set(blocks)) == 2000
    assert len(pool.regions()) < 20
    for block in blocks[::2] + blocks[1::2]:
        handler.free(handler.ctx, block, 0)
    assert len(pool.regions()) <= 4
    assert heap.blocks == 0
