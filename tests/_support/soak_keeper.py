"""The member of the soak that nobody kills and no lost page ends: it touches nothing.

Each of the others may touch a page that is lost; should all of them do so while a new one is on its way, the pool
would end, as it must, and the soak with it.

The job: as crowd_member.py's. It is told "count N", and "leave".
"""

from __future__ import annotations

import queue
import threading
from typing import Any

from _support.crowd_member import REGION, count, join, listen, region_named


def run(job: dict[str, Any]) -> int:
    """=> 0, when told to leave."""
    lines: queue.Queue[str] = queue.Queue()
    pool = join(job)
    region = region_named(pool, job, REGION, job["bytes"])
    threading.Thread(target=listen, args=(lines,), daemon=True).start()
    print("ready", flush=True)
    while (line := lines.get()) != "leave":
        count(pool, int(line.partition(" ")[2]))
        print("counted", flush=True)
    region.close()
    return 0
