"""How pages are mapped in this process, as the kernel says it."""

from __future__ import annotations

import os

import uswap

PAGE = 4096
_PRESENT, _UFFD_WRITE_PROTECTED = 1 << 63, 1 << 57


def _entries(region: uswap.Region) -> list[int]:
    address, pages = region.info().address, len(region) // PAGE
    file = os.open("/proc/self/pagemap", os.O_RDONLY)
    try:
        raw = os.pread(file, pages * 8, address // PAGE * 8)
    finally:
        os.close(file)
    return list(memoryview(raw).cast("Q"))


def mapped(region: uswap.Region) -> list[int]:
    """Numbers of the pages that this process has mapped."""
    return [page for page, entry in enumerate(_entries(region)) if entry & _PRESENT]


def write_protected(region: uswap.Region) -> list[int]:
    """Those of them that userfaultfd protects."""
    both = _PRESENT | _UFFD_WRITE_PROTECTED
    return [page for page, entry in enumerate(_entries(region)) if entry & both == both]
