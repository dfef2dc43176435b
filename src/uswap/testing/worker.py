"""The process that fuzzes: ``python -m uswap.testing.worker JOURNAL``, with Options as JSON on standard input. It
says its report as lines of JSON; supervise.py reads them, and looks after it."""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import uswap
from uswap.testing.options import Options, Report


def options_from(given: dict[str, Any]) -> Options:
    """Of what JSON carries."""
    database = given.pop("database", None)
    return Options(**given, database=None if database is None else Path(database))


def quiet() -> None:
    """What is injected is also warned of; that is not for whoever fuzzes."""
    warnings.simplefilter("ignore", uswap.UswapWarning)
    logging.getLogger("uswap").addHandler(logging.NullHandler())
    logging.getLogger("uswap").propagate = False


def main() -> None:
    """Does not return: threads that hang, and memory that is broken, are left behind."""
    status = 1
    # What Hypothesis, a policy, or a process of ours prints is no report.
    reports = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(report: Report) -> None:
        reports.write(json.dumps(report.as_dict()) + "\n")
        reports.flush()

    try:
        from uswap.testing.run import fuzz

        quiet()
        options = options_from(json.load(sys.stdin))
        report = fuzz(options, say=say, journal=Path(sys.argv[1]))
        status = 1 if report.failures else 0
    except BaseException:
        import traceback

        traceback.print_exc()
        status = 70
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
