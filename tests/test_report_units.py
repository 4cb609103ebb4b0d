"""Numbers as they are shown."""

import pytest

from prunecli.report import units


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (7, "7"),
        (999, "999"),
        (1_000, "1.00 k"),
        (12_345, "12.3 k"),
        (999_499, "999 k"),
        (999_500, "1.00 M"),
        (1_229_999, "1.23 M"),
        (40_552_000, "40.6 M"),
        (1_000_000_000, "1.00 G"),
        (4_100_000_000_000, "4.10 T"),
    ],
)
def test_count(value: int, text: str) -> None:
    assert units.count(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (999, "999 B"), (1_024, "1.02 kB"), (1_102_345, "1.10 MB"), (999_999, "1.00 MB")],
)
def test_size_is_decimal(value: int, text: str) -> None:
    assert units.size(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.7312, "0.731 ms"),
        (0.00512, "0.00512 ms"),
        (9.996, "10.0 ms"),
        (12.34, "12.3 ms"),
        (99.96, "100 ms"),
        (1234.0, "1234 ms"),
        (float("nan"), "nan ms"),
    ],
)
def test_milliseconds(value: float, text: str) -> None:
    assert units.milliseconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.951, "0.95x"), (1.0, "1.00x"), (9.994, "9.99x"), (9.996, "10.0x")]
)
def test_factor(value: float, text: str) -> None:
    assert units.factor(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (3.14e-6, "3.1e-06"), (1e-4, "0.0001"), (0.03, "0.03")]
)
def test_tolerance(value: float, text: str) -> None:
    assert units.tolerance(value) == text


def test_names() -> None:
    assert units.names(("a",)) == "a"
    assert units.names(("a", "b", "c")) == "a, b, c"
    assert units.names(tuple("abcdefg")) == "a, b, c and 4 more"


def test_plural() -> None:
    assert (units.plural(1, "layer"), units.plural(5_000, "example")) == (
        "1 layer",
        "5,000 examples",
    )
