"""C files of the tests, compiled once each."""

from __future__ import annotations

import functools
import hashlib
import os
import shlex
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@functools.cache
def shared_object(source: Path) -> str:
    """The path of a shared object made from source; kept for the next session of tests."""
    stamp = hashlib.sha256(source.read_bytes()).hexdigest()[:16]
    target = Path(tempfile.gettempdir()) / f"uswap-{source.stem}-{os.getuid()}-{stamp}.so"
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            made = Path(folder) / "made.so"
            subprocess.run(["cc", "-O2", "-shared", "-fPIC", str(source), "-o", str(made), "-pthread"], check=True)
            made.replace(target)
    return str(target)


@functools.cache
def program(source: Path, *core: Path, flags: tuple[str, ...] = (), libraries: tuple[str, ...] = ()) -> str:
    """The path of a program made from source and files of the core; kept for the next session of tests. In a
    variant (tests/variants/run.py) it is compiled as the variant's core is."""
    flags = (*flags, *shlex.split(os.environ.get("USWAP_VARIANT_FLAGS", "")))
    stamp = hashlib.sha256(" ".join((*flags, *libraries)).encode())
    environment = {key: value for key, value in os.environ.items() if key != "LD_PRELOAD"}
    for file in (source, *core, *sorted((ROOT / "csrc").rglob("*.h")), *source.parent.glob("*.h")):
        stamp.update(file.read_bytes())
    target = Path(tempfile.gettempdir()) / f"uswap-{source.stem}-{os.getuid()}-{stamp.hexdigest()[:16]}"
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            made = Path(folder) / "made"
            command = ["cc", "-std=gnu11", "-O2", "-g", *flags, f"-I{ROOT / 'csrc'}", str(source), *map(str, core)]
            command += ["-o", str(made), "-pthread", *libraries]
            subprocess.run(command, check=True, env=environment)
            made.replace(target)
    return str(target)
