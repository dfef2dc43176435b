"""Sizes as text and as numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uswap._sizes import format_size, parse_size, round_to_pages


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512MiB", 512 << 20),
        ("2 GiB", 2 << 30),
        ("1.5G", 3 << 29),
        ("10MB", 10_000_000),
        (" 4k ", 4096),
        ("1kb", 1000),
        (".5 KiB", 512),
        ("4096", 4096),
        ("7B", 7),
        ("1t", 1 << 40),
    ],
)
def test_text_means_bytes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "bad",
    [
        "12XB",
        "",
        "MiB",
        "0",
        "0MiB",
        "-1MiB",
        "nan",
        "inf",
        "1e9",
        "1 2",
        "1,5G",
        "0.1B",
        "9EiB",
        "\u0665MiB",
    ],
)
def test_text_that_is_no_size_is_a_value_error_that_names_it(bad: str) -> None:
    with pytest.raises(ValueError, match="limit") as caught:
        parse_size(bad, "limit")
    assert repr(bad) in str(caught.value)


@pytest.mark.parametrize("bad", [0, -1, True, False, float("nan"), 2**63])
def test_numbers_that_are_no_size_are_value_errors(bad: object) -> None:
    with pytest.raises(ValueError, match="size"):
        parse_size(bad)


@pytest.mark.parametrize("bad", [1.5, None, b"1MiB", [1], object()])
def test_other_types_are_type_errors(bad: object) -> None:
    with pytest.raises(TypeError, match="must be an integer or text"):
        parse_size(bad)


def test_numpy_integers_are_integers() -> None:
    numpy = pytest.importorskip("numpy")
    assert parse_size(numpy.int64(4096)) == 4096


@given(st.integers(min_value=1, max_value=2**63 - 1))
def test_a_number_means_itself_also_as_text(size: int) -> None:
    assert parse_size(size) == parse_size(str(size)) == parse_size(f"{size} B") == size


@given(st.integers(min_value=1, max_value=2**60))
def test_formatted_sizes_parse_back_to_within_rounding(size: int) -> None:
    assert abs(parse_size(format_size(size)) - size) <= size * 0.006


@pytest.mark.parametrize(("size", "rounded"), [(1, 4096), (4096, 4096), (4097, 8192)])
def test_rounding_to_pages_goes_up(size: int, rounded: int) -> None:
    assert round_to_pages(size) == rounded
