"""Builds the core another way, in a place of its own, and runs tests with it.

    python tests/variants/run.py VARIANT [ARGUMENTS OF PYTEST...]

The build lies in build/variants/VARIANT: a package ``uswap`` of links to src/uswap with an extension module of its
own. src/uswap, and the stamps of the Makefile, are not touched. What a sanitizer has to say, in whichever process,
goes to files in build/variants/VARIANT/findings; if there is one at the end, the run has failed, whatever the tests
said.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
PLACE = ROOT / "build" / "variants"

# Handlers of the sanitizers would get the signals that the core's last words, and the tests, are about. Leaks have
# a variant of their own. Without alternate stacks: the core's handler and Python's faulthandler bring theirs.
ASAN_OPTIONS = {
    "detect_leaks": 0,
    "handle_segv": 0,
    "handle_sigbus": 0,
    "handle_abort": 0,
    "handle_sigfpe": 0,
    "handle_sigill": 0,
    "use_sigaltstack": 0,
    "allocator_may_return_null": 1,
    "detect_stack_use_after_return": 0,
    "strict_string_checks": 1,
}
# die_after_fork: processes with threads fork here, as programs with pools do, and go on.
TSAN_OPTIONS = {
    "handle_segv": 0,
    "handle_sigbus": 0,
    "handle_abort": 0,
    "handle_sigfpe": 0,
    "handle_sigill": 0,
    "use_sigaltstack": 0,
    "die_after_fork": 0,
    "allocator_may_return_null": 1,
    "report_signal_unsafe": 0,
    "second_deadlock_stack": 1,
    "history_size": 4,
    "suppressions": HERE / "tsan.supp",
}


@dataclass(frozen=True)
class Variant:
    """How the core is built, and what its processes need."""

    build: dict[str, str] = field(default_factory=dict)
    libraries: tuple[str, ...] = ()  # preloaded: Python itself is not built with the sanitizer
    options: dict[str, dict[str, object]] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)


VARIANTS = {
    # Every block of Python's by malloc: what the core writes behind one of cffi's is found.
    "asan": Variant(
        build={"USWAP_SANITIZE": "address,undefined"},
        libraries=("libasan.so", "libubsan.so"),
        options={"ASAN_OPTIONS": ASAN_OPTIONS, "UBSAN_OPTIONS": {"print_stacktrace": 1}},
        environment={"PYTHONMALLOC": "malloc"},
    ),
    "tsan": Variant(
        build={"USWAP_SANITIZE": "thread"},
        libraries=("libtsan.so",),
        options={"TSAN_OPTIONS": TSAN_OPTIONS},
    ),
    "invariants": Variant(build={"USWAP_DEBUG": "1"}),
    # Processes that end by a signal from outside, or by _exit, leave no counts; those that a failpoint kills do.
    "coverage": Variant(
        build={"CFLAGS": "--coverage -fprofile-update=atomic -DUSWAP_COVERAGE", "LDFLAGS": "--coverage"},
    ),
    # What is left when the process ends. Only what was allocated on behalf of the core counts (finding_in).
    "leaks": Variant(
        build={"USWAP_SANITIZE": "address,undefined"},
        libraries=("libasan.so", "libubsan.so"),
        options={
            # By the tables of the stack, not by frame pointers: libcrypto and liburing have none.
            "ASAN_OPTIONS": {**ASAN_OPTIONS, "detect_leaks": 1, "fast_unwind_on_malloc": 0},
            "LSAN_OPTIONS": {"exitcode": 0},
        },
        environment={"USWAP_LEAK_TIMES": os.environ.get("USWAP_LEAK_TIMES", "20")},
    ),
}


def build(name: str, variant: Variant) -> Path:
    """Builds the extension module, and makes the package of links around it; => the folder to import it from."""
    place = PLACE / name
    environment = {**os.environ, "USWAP_FAILPOINTS": "1", "USWAP_WERROR": "1", **variant.build}
    command = [sys.executable, "setup.py", "-q", "build_ext", f"--build-lib={place}", f"--build-temp={place}/temp"]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    package = place / "uswap"
    for link in package.iterdir():
        if link.is_symlink():
            link.unlink()
    for file in (ROOT / "src" / "uswap").iterdir():
        if file.suffix != ".so" and file.name != "__pycache__":
            (package / file.name).symlink_to(file)
    return place


CUSTOMIZATION = """
import ctypes
ctypes.CDLL({library!r}).__sanitizer_set_report_path({path!r})
"""


def customize(name: str, variant: Variant) -> None:
    """Tells libubsan where to report. Beside libasan it does not hear of log_path: libasan's function of the same
    name is called in its place."""
    if "libubsan.so" in variant.libraries:
        path = str(findings_of(name) / "undefined").encode()
        said = CUSTOMIZATION.format(library=library("libubsan.so"), path=path)
        (PLACE / name / "sitecustomize.py").write_text(said)


def library(name: str) -> str:
    """The path of a sanitizer's runtime, as the compiler has it."""
    compiler = os.environ.get("CC", "cc").split()
    answer = subprocess.run([*compiler, f"-print-file-name={name}"], stdout=subprocess.PIPE, text=True, check=True)
    path = Path(answer.stdout.strip())
    if not path.is_absolute():
        raise SystemExit(
            f"error: the compiler has no {name}: install gcc's (Debian, Ubuntu: it comes with gcc), or unset CC"
        )
    return str(path)


def findings_of(name: str) -> Path:
    return PLACE / name / "findings"


def environment(name: str, variant: Variant) -> dict[str, str]:
    """Of the processes that are to run with it."""
    place = PLACE / name
    kinds = variant.build.get("USWAP_SANITIZE")
    result = {**os.environ, **variant.environment, "USWAP_VARIANT": name}
    result["USWAP_VARIANT_FLAGS"] = f"-fsanitize={kinds} -fno-sanitize-recover=undefined" if kinds else ""
    result["PYTHONPATH"] = os.pathsep.join(filter(None, [str(place), os.environ.get("PYTHONPATH")]))
    if variant.libraries:
        result["LD_PRELOAD"] = " ".join(map(library, variant.libraries))
    for key, options in variant.options.items():
        said = {**options, "log_path": findings_of(name) / "report"}
        result[key] = ":".join(f"{option}={value}" for option, value in said.items())
    return result


def finding_in(text: str) -> str:
    """A report without the leaks that the core has no part in: CPython and its modules keep what they have until
    the end."""
    paragraphs = text.split("\n\n")
    leaks = [part for part in paragraphs if " leak of " in part]
    if not leaks:
        return text
    return "\n\n".join(part for part in leaks if "csrc/" in part)


def report(name: str) -> int:
    """Prints what the sanitizers found; => how many processes had something to say."""
    found = {file: finding_in(file.read_text(errors="replace")) for file in sorted(findings_of(name).glob("*"))}
    found = {file: text for file, text in found.items() if text}
    for file, text in found.items():
        print(f"---- {file.name}\n{text}")
    print(f"{name}: {len(found)} processes with findings")
    return len(found)


def forget_counts() -> None:
    """Of earlier runs, and what the compiler noted of objects that are no more: each compilation has its number."""
    notes: dict[Path, list[Path]] = {}
    for note in (ROOT / "build" / "core").rglob("*.gcno"):
        notes.setdefault(note.with_suffix("").with_suffix(""), []).append(note)
    for old in (ROOT / "build" / "core").rglob("*.gcda"):
        old.unlink()
    for several in notes.values():
        for old in sorted(several, key=lambda note: note.stat().st_mtime_ns)[:-1]:
            old.unlink()


def main(arguments: list[str]) -> int:
    """The whole run; => its exit status."""
    if not arguments or arguments[0] not in VARIANTS:
        raise SystemExit(f"usage: run.py {{{','.join(VARIANTS)}}} [ARGUMENTS OF PYTEST...]")
    name, variant = arguments[0], VARIANTS[arguments[0]]
    build(name, variant)
    shutil.rmtree(findings_of(name), ignore_errors=True)
    findings_of(name).mkdir(parents=True)
    customize(name, variant)
    if name == "coverage":
        forget_counts()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments[1:]], cwd=ROOT, env=environment(name, variant), check=False
    )
    found = report(name)
    return done.returncode or min(found, 1)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
