"""Faults of system calls are not served: as where the kernel permits userfaultfd for user-mode faults alone."""

from __future__ import annotations

import ctypes
import platform
import struct

_NUMBERS = {"x86_64": (323, 16), "aarch64": (282, 29)}  # userfaultfd, ioctl
_IOC_NEW, _USER_MODE_ONLY, _EPERM = 0xAA00, 1, 1
_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _FILTER = 38, 22, 2


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_void_p))


def permit_user_mode_faults_only() -> None:
    """From now on userfaultfd(2) without UFFD_USER_MODE_ONLY, and the ioctl of /dev/userfaultfd, get EPERM in this
    process (seccomp(2); the numbers are those of linux/filter.h and linux/seccomp.h)."""
    userfaultfd, ioctl = _NUMBERS[platform.machine()]
    steps = (
        (_LOAD, 0, 0, 0),  # the number of the system call
        (_EQUAL, 1, 0, userfaultfd),
        (_EQUAL, 2, 4, ioctl),
        (_LOAD, 0, 0, 16),  # its first argument: flags
        (_ANY_BIT, 2, 3, _USER_MODE_ONLY),
        (_LOAD, 0, 0, 24),  # its second: the ioctl
        (_EQUAL, 1, 0, _IOC_NEW),
        (_RETURN, 0, 0, 0x7FFF0000),
        (_RETURN, 0, 0, 0x00050000 | _EPERM),
    )
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = _Program(len(steps), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    assert libc.prctl(_PR_SET_SECCOMP, _FILTER, ctypes.byref(program), 0, 0) == 0, ctypes.get_errno()
