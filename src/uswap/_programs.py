"""What kind of program a file is, as far as it decides whether a library can be put in front of it."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import stat
import struct
import sys
from pathlib import Path

from uswap._errors import ArgumentError, UnsupportedError

_ELF = b"\x7fELF"
_PROGRAM_INTERPRETER = 3
# e_machine of what uswap is built for.
_MACHINES = {"x86_64": 62, "aarch64": 183}
# A script may name another script, as deep as execve(2) follows.
_SCRIPTS_DEEP = 5


def find_program(name: str | os.PathLike[str], search: str | None = None) -> Path:
    """The file that a command's first word means, by search (None: $PATH) as a shell does it.

    Raises:
        ArgumentError: there is none, or it may not be executed.

    Example:
        >>> find_program("sh").name
        'sh'
    """
    found = shutil.which(os.fspath(name), path=search)
    if found is not None:
        return Path(found)
    if os.path.isdir(name):
        raise ArgumentError(f"{os.fspath(name)!r} is a directory, not a program")
    if os.path.exists(name):
        raise ArgumentError(f"{os.fspath(name)!r} may not be executed", hint="chmod +x, or name its interpreter")
    raise ArgumentError(f"there is no program {os.fspath(name)!r}", hint="give its path, or put it on $PATH")


def check_can_preload(program: Path) -> None:
    """Raises UnsupportedError, which says why, where the loader would not put a library in front of the program:
    static, for another kind of machine, of another C library, or with rights of its own."""
    for _ in range(_SCRIPTS_DEEP):
        _check_rights(program)
        head = _first_bytes(program)
        if not head.startswith(b"#!"):
            break
        program = _interpreter_of_script(program, head)
    if head.startswith(_ELF):
        _check_elf(program, head)
    # What is neither, execve(2) refuses, or a shell runs as a script of its own: then the shell is what counts.


def _first_bytes(program: Path) -> bytes:
    try:
        with program.open("rb") as file:
            return file.read(4096)
    except PermissionError:
        return b""  # it may be executed, and not be read
    except OSError as error:
        raise ArgumentError(f"{str(program)!r} cannot be read: {error.strerror}") from None


def _check_rights(program: Path) -> None:
    status = program.stat()
    own = (status.st_mode & stat.S_ISUID and status.st_uid != os.geteuid()) or (
        status.st_mode & stat.S_ISGID and status.st_gid != os.getegid()
    )
    with contextlib.suppress(OSError):  # none, or none known on this file system
        own = own or bool(os.getxattr(program, "security.capability"))
    if own:
        raise UnsupportedError(
            f"{str(program)!r} runs with rights of its own (setuid, setgid or capabilities): the loader lets "
            "nobody put a library in front of it"
        )


def _interpreter_of_script(script: Path, head: bytes) -> Path:
    words = head[2:].split(b"\n", 1)[0].split()
    if not words:
        raise ArgumentError(f"{str(script)!r} names no interpreter in its first line")
    if os.path.basename(words[0]) == b"env":
        names = [word for word in words[1:] if not word.startswith(b"-") and b"=" not in word]
        if names:
            return find_program(os.fsdecode(names[0]))
    return find_program(os.fsdecode(words[0]))


def _check_elf(program: Path, head: bytes) -> None:
    name = repr(str(program))
    if head[4] != 2:
        raise UnsupportedError(f"{name} is a 32-bit program: only 64-bit ones can be limited")
    order = "<" if sys.byteorder == "little" else ">"
    (machine,) = struct.unpack_from(f"{order}H", head, 18)
    if machine != _MACHINES.get(platform.machine(), machine):
        raise UnsupportedError(f"{name} is for another kind of processor")
    interpreter = _elf_interpreter(program, head, order)
    if interpreter is None:
        raise UnsupportedError(
            f"{name} is a static program: there is no loader that could put a library in front of it"
        )
    if "ld-linux" not in os.path.basename(interpreter):
        raise UnsupportedError(f"{name} uses another C library ({interpreter}): only glibc's can be limited")


def _elf_interpreter(program: Path, head: bytes, order: str) -> str | None:
    (table,) = struct.unpack_from(f"{order}Q", head, 32)
    size, count = struct.unpack_from(f"{order}HH", head, 54)
    with program.open("rb") as file:
        for i in range(count):
            file.seek(table + i * size)
            kind, _, offset, _, _, length = struct.unpack(f"{order}IIQQQQ", file.read(40))
            if kind == _PROGRAM_INTERPRETER:
                file.seek(offset)
                return os.fsdecode(file.read(length).rstrip(b"\0"))
    return None
