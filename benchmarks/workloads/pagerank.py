"""PageRank on a power-law graph in CSR form: the edges are scanned, the ranks gathered at random."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from workloads.base import Allocate, Program, checksum

EDGES_A_NODE = 10
# indices of the edges (4 bytes each); start of each node, rank, contribution, outgoing edges (8 bytes each).
BYTES_A_NODE = 4 * EDGES_A_NODE + 4 * 8
_ITERATIONS = 3
_DAMPING = 0.85
_CHUNK_NODES = 8192
_SEED = 11


def _chunks(nodes: int) -> list[tuple[int, int]]:
    return [(first, min(first + _CHUNK_NODES, nodes)) for first in range(0, nodes, _CHUNK_NODES)]


def _scattered(ranks: Any, nodes: int) -> Any:
    """Nodes of these ranks of popularity, popular ones all over the place, without a table."""
    step = int(nodes * 0.6180339887) | 1
    while np.gcd(step, nodes) != 1:
        step += 2
    return ranks * step % nodes


class Graph:
    """Who has edges from whom, in arrays of the caller's.

    Attributes:
        start: node i's incoming edges are start[i] to start[i + 1] of source; each node has one at least.
        outgoing: edges that leave each node.
        longest: edges of the longest chunk.
    """

    def __init__(self, allocate: Allocate, nodes: int) -> None:
        random = np.random.default_rng(_SEED)
        self.nodes, self.longest = nodes, 0
        self.start = allocate(nodes + 1, np.int64)
        self.outgoing = allocate(nodes, np.float64)
        self.source = allocate(nodes * EDGES_A_NODE, np.int32)
        done = 0
        for first, end in _chunks(nodes):
            # Pareto, exponent 2.1, with a mean a little above EDGES_A_NODE: when the edges run out, the last nodes
            # have one each, and the very last one has the rest.
            wanted = 1 + np.minimum((random.pareto(1.1, end - first) * 1.6).astype(np.int64), 4 * _CHUNK_NODES)
            room = len(self.source) - done - (nodes - first)
            counts = wanted if wanted.sum() - len(wanted) <= room else np.ones_like(wanted)
            if end == nodes:
                counts[-1] += min(len(self.source) - done - int(counts.sum()), 8 * _CHUNK_NODES)
            edges = int(counts.sum())
            self.start[first + 1 : end + 1] = done + np.cumsum(counts)
            # The popularity of a source falls with its rank to the power of -2/3.
            sources = _scattered((nodes * random.random(edges) ** 3).astype(np.int64), nodes)
            self.source[done : done + edges] = sources
            np.add.at(self.outgoing, sources, 1.0)
            done += edges
            self.longest = max(self.longest, edges)
        self.edges = done


def _iterate(graph: Graph, rank: Any, contribution: Any, gathered: Any) -> None:
    for first, end in _chunks(graph.nodes):
        contribution[first:end] = rank[first:end] / np.maximum(graph.outgoing[first:end], 1.0)
    for first, end in _chunks(graph.nodes):
        start = graph.start[first : end + 1]
        edges = slice(int(start[0]), int(start[-1]))
        values = gathered[: edges.stop - edges.start]
        np.take(contribution, graph.source[edges], out=values, mode="clip")
        sums = np.add.reduceat(values, start[:-1] - start[0])
        rank[first:end] = (1 - _DAMPING) / graph.nodes + _DAMPING * sums


def prepare(allocate: Allocate, size: int) -> Callable[[], int]:
    """The graph; the work is some iterations from equal ranks."""
    nodes = size // BYTES_A_NODE
    graph = Graph(allocate, nodes)
    rank, contribution = allocate(nodes, np.float64), allocate(nodes, np.float64)
    gathered = np.empty(graph.longest)

    def work() -> int:
        rank[:] = 1.0 / nodes
        for _ in range(_ITERATIONS):
            _iterate(graph, rank, contribution, gathered)
        return checksum(rank)

    return work


PROGRAM = Program(prepare)
