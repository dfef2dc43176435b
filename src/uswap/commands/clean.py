"""uswap clean: removes what named pools have left behind whose processes were all killed, as the next named pool
does that is made or joined; and says what. Never what lives."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from uswap._core import require_core
from uswap._errors import BusyError, UswapError
from uswap._rendezvous import clean, pool_folders, stale_locks


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--json."""
    parser.add_argument("--json", action="store_true", help="what was removed, as JSON on standard output")


def _clean_all() -> tuple[list[str], list[str]]:
    """=> (what was removed, what could not be told or removed, and why)."""
    removed, failed = [], []
    for lock in stale_locks():
        # Under the lock, a folder that is not there has its lock file removed.
        try:
            clean(lock.with_suffix(""))
            if not lock.exists():
                removed.append(str(lock))
        except BusyError:
            pass  # somebody is just making that pool
        except UswapError as error:
            failed.append(str(error))
    for folder in pool_folders():
        try:
            if clean(folder):
                removed.append(str(folder))
        except UswapError as error:
            failed.append(f"{Path(folder).name}: {error}")
    return removed, failed


def run(options: argparse.Namespace) -> int:
    """=> 0; 1 if something stale could not be removed, 2 if nothing can be said."""
    try:
        require_core()
        removed, failed = _clean_all()
    except (UswapError, OSError) as error:
        print(f"uswap clean: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps({"removed": removed, "failed": failed}, indent=2))
    else:
        print("\n".join(f"removed {path}" for path in removed) or "nothing was stale")
    for reason in failed:
        print(f"uswap clean: {reason}", file=sys.stderr)
    return 1 if failed else 0
