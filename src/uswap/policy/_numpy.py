"""NumPy, where the program has it anyway."""

from __future__ import annotations

import sys
from typing import Any


def imported_numpy() -> Any:
    """The module, if the program has imported it; else None: a policy is no reason to. Another thread may be just
    about to import it: then it is not there yet."""
    numpy = sys.modules.get("numpy")
    spec = getattr(numpy, "__spec__", None)
    return None if spec is None or getattr(spec, "_initializing", False) else numpy
