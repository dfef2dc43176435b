"""Every status of the core has its exception."""

import pickle
import re

import pytest

import uswap
from uswap import _errors
from uswap._core import check_error, ffi, lib, new_error

BUILT_IN_OF_STATUS = {
    "USWAP_E_INVALID": ValueError,
    "USWAP_E_NO_MEMORY": MemoryError,
    "USWAP_E_UNSUPPORTED": uswap.UnsupportedError,
    "USWAP_E_OS": OSError,
    "USWAP_E_IN_USE": uswap.SwapAreaError,
    "USWAP_E_NOT_OURS": uswap.SwapAreaError,
    "USWAP_E_SWAP_READ": uswap.SwapError,
    "USWAP_E_CLOSED": uswap.ClosedError,
    "USWAP_E_FORKED": uswap.ForkError,
    "USWAP_E_CORRUPT": AssertionError,
    "USWAP_E_BUSY": BlockingIOError,
    "USWAP_E_LIMIT": uswap.LimitError,
}


def test_every_status_of_the_core_is_in_the_table() -> None:
    statuses = set(ffi.typeof("uswap_status").relements) - {"USWAP_OK"}
    assert statuses == set(BUILT_IN_OF_STATUS) == set(_errors._CLASS_OF_STATUS)


@pytest.mark.parametrize(("status", "built_in"), BUILT_IN_OF_STATUS.items())
def test_a_status_becomes_its_exception_with_all_its_fields(status: str, built_in: type[Exception]) -> None:
    error = new_error()
    error.operation = b"pread"
    error.path = b"/var/tmp/x.swap"
    error.os_errno = 5
    error.offset = 8192
    error.detail = b"it is broken"
    with pytest.raises(uswap.UswapError, match="it is broken") as caught:
        check_error(getattr(lib, status), error)
    assert isinstance(caught.value, built_in)
    assert (caught.value.operation, caught.value.path) == ("pread", "/var/tmp/x.swap")
    assert (caught.value.errno, caught.value.offset) == (5, 8192)


def test_results_that_are_not_negative_pass() -> None:
    assert check_error(0, new_error()) == 0
    assert check_error(17, new_error()) == 17


def test_what_the_core_does_not_say_is_none() -> None:
    with pytest.raises(MemoryError) as caught:
        check_error(lib.USWAP_E_NO_MEMORY, new_error())
    assert isinstance(caught.value, uswap.OutOfSpaceError)
    assert (caught.value.errno, caught.value.offset) == (None, None)
    assert "USWAP_E_NO_MEMORY" in str(caught.value)


def test_unsupported_errors_say_what_to_run() -> None:
    with pytest.raises(uswap.UnsupportedError, match="uswap doctor"):
        check_error(lib.USWAP_E_UNSUPPORTED, new_error())


@pytest.mark.parametrize("kind", sorted({*_errors._CLASS_OF_STATUS.values()}, key=lambda kind: kind.__name__))
def test_errors_survive_pickling(kind: type[uswap.UswapError]) -> None:
    error = kind("broken", operation="pread", path="/x", errno=5, offset=7, hint="mend it")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error) == "broken (mend it)"
    assert (again.operation, again.path, again.errno, again.offset) == ("pread", "/x", 5, 7)


def test_every_error_class_is_exported() -> None:
    kinds = {name for name in vars(_errors) if re.fullmatch(r"[A-Z]\w+(Error|Warning)", name)}
    assert kinds <= set(uswap.__all__)
