"""Builds a copy of the tree: by setup.py once, then only what a patch has changed, without its probes and cffi."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from unittest import mock

import setuptools  # type: ignore[import-untyped]
from catalogue import ROOT, Mutant

_LEFT_OUT = (".git", ".venv", "dist", "*.so", "__pycache__", ".hypothesis", "*.egg-info", ".*_cache")
_TEST_BUILD = {"USWAP_FAILPOINTS": "1", "USWAP_WERROR": "1"}
# What cffi reads: a patch of it needs all of setup.py.
_DECLARATIONS = ("csrc/include/", "src/uswap/_ffi_build.py", "setup.py")


class BuildError(Exception):
    """The compiler has refused it; its words are on stderr."""


@contextmanager
def copy_of_tree() -> Iterator[Path]:
    """A copy, where patches are applied and taken back. It has the objects of the test build."""
    with tempfile.TemporaryDirectory(prefix="uswap-mutants-") as folder:
        tree = Path(folder) / "tree"
        shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(*_LEFT_OUT))
        yield tree


def _steps_of(tree: Path) -> ModuleType:
    """The functions of the tree's setup.py, without what it does as a script."""
    spec = importlib.util.spec_from_file_location("setup_of_the_copy", tree / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    steps = importlib.util.module_from_spec(spec)
    with mock.patch.object(setuptools, "setup"):
        spec.loader.exec_module(steps)
    return steps


class Builder:
    """Builds one tree.

    Raises (all methods):
        BuildError: it does not compile or link.
    """

    def __init__(self, tree: Path) -> None:
        self._tree = tree
        self._whole()
        with mock.patch.dict(os.environ, _TEST_BUILD):
            self._steps = _steps_of(tree)
            uring, self._uring_arguments = self._steps.find_uring()
            crypto, self._crypto_arguments = self._steps.find_crypto()
        self._found = [*uring, *crypto]

    def build(self, mutant: Mutant | None) -> None:
        """mutant: the one that is applied; None: the tree is clean."""
        if mutant is not None and any(name in mutant.path.read_text() for name in _DECLARATIONS):
            self._whole()
            return
        with mock.patch.dict(os.environ, _TEST_BUILD):
            try:
                objects = self._steps.compile_core(self._found)
                self._link(objects)
            except subprocess.CalledProcessError as failure:
                raise BuildError(str(failure)) from failure

    def _link(self, objects: list[str]) -> None:
        (declarations,) = self._tree.glob("build/temp.*/**/uswap._uswap.o")
        (module,) = (self._tree / "src/uswap").glob("_uswap.*.so")
        arguments = ["-pthread", "-lm", *self._uring_arguments, *self._crypto_arguments]
        command = [*self._steps.compiler(), "-shared", str(declarations), *objects, *arguments, "-o", str(module)]
        subprocess.run(command, check=True, cwd=self._tree)

    def _whole(self) -> None:
        command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
        done = subprocess.run(
            command, cwd=self._tree, env={**os.environ, **_TEST_BUILD}, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            print(done.stderr[-3000:], file=sys.stderr)
            raise BuildError(f"setup.py ended with {done.returncode}")
