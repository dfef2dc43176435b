"""The programs of bench_run.py: how each is started, with what input, and how much memory it takes by itself."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Program:
    """A program to be limited.

    Attributes:
        name: of the row.
        make: makes its input in a folder, of a size times a scale; => the command.
        stdin: name of a file in that folder, if it reads one.
    """

    name: str
    make: Callable[[Path, float], list[str]]
    stdin: str | None = None


def _sort(folder: Path, scale: float) -> list[str]:
    lines = int(33_000_000 * scale)
    text = folder / "lines"
    if not text.exists():
        numbers = random.Random(1)
        with text.open("w") as file:
            for i in range(lines):
                file.write(f"{numbers.getrandbits(60):020d} {i:x}\n")
    return ["sort", "-S", f"{int(2 * text.stat().st_size) >> 20}M", "--parallel=2", str(text)]


_SQL = """
PRAGMA cache_size=-4000000; PRAGMA temp_store=MEMORY;
CREATE TABLE a(id INTEGER PRIMARY KEY, k INT, v TEXT);
CREATE TABLE b(k INTEGER PRIMARY KEY, w TEXT);
WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c WHERE x<{rows})
  INSERT INTO a SELECT x, (x*7919)%{keys}, hex(x*x*12345) FROM c;
WITH RECURSIVE c(x) AS (SELECT 0 UNION ALL SELECT x+1 FROM c WHERE x<{keys}) INSERT INTO b SELECT x, 'w'||x FROM c;
SELECT count(*), sum(length(a.v)+length(b.w)) FROM a JOIN b ON a.k=b.k WHERE b.w LIKE '%7%';
SELECT k, count(*) c, max(v) FROM a GROUP BY k ORDER BY c DESC, k LIMIT 3;
"""


def _sqlite(folder: Path, scale: float) -> list[str]:
    rows = int(4_000_000 * scale)
    (folder / "statements").write_text(_SQL.format(rows=rows, keys=rows // 4))
    return ["sqlite3", ":memory:"]


def _gcc(folder: Path, scale: float) -> list[str]:
    with (folder / "large.c").open("w") as file:
        for i in range(int(20_000 * scale)):
            file.write(
                f"int f{i}(int x){{int s=0;for(int i=0;i<x;i++)"
                f"{{s+=i*{i};if(s%7=={i % 7})s^=x;else s-=i;}}return s;}}\n"
            )
    return ["gcc", "-O1", "-S", "-o", "-", str(folder / "large.c")]


def _python(script: str, size: int) -> Callable[[Path, float], list[str]]:
    def make(_: Path, scale: float) -> list[str]:
        return [sys.executable, str(HERE / "workloads" / script), str(int(size * scale))]

    return make


PROGRAMS = (
    Program("sort", _sort),
    Program("sqlite", _sqlite, stdin="statements"),
    Program("gcc", _gcc),
    Program("pandas", _python("run_pandas.py", 16_000_000)),
    Program("sklearn", _python("run_sklearn.py", 2_000_000)),
    Program("dict", _python("run_dict.py", 5_000_000)),
    Program("redis", _python("run_redis.py", 600_000)),
)
