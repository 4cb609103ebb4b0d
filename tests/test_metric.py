"""Which way a metric goes, and what may be lost of it."""

import pytest

from prunecli.metric import Metric
from prunecli.shares import Margin

SHARE = Metric("accuracy", "accuracy", percent=True, higher_is_better=True)
ERROR = Metric("mse", "MSE", percent=False, higher_is_better=False)


def test_no_worse() -> None:
    assert SHARE.at_least_as_good(0.9, 0.9)
    assert not SHARE.at_least_as_good(0.8, 0.9)
    assert ERROR.at_least_as_good(0.8, 0.9)
    assert not ERROR.at_least_as_good(0.9, 0.8)


def test_what_may_be_left() -> None:
    assert SHARE.floor(0.9, Margin(0.01)) == pytest.approx(0.89)
    assert SHARE.floor(0.9, Margin(0.1, relative=True)) == pytest.approx(0.81)
    assert ERROR.floor(2.0, Margin(0.05, relative=True)) == pytest.approx(2.1)
    # Of a score below zero, a share is taken of its size.
    number = Metric("r2", "R2", False, True)
    assert number.floor(-2.0, Margin(0.1, relative=True)) == pytest.approx(-2.2)


def test_a_margin_that_is_met_exactly_is_met() -> None:
    """In floats 0.44 - 0.03 is above 0.41, and 3 * 1.1 below 3.3000000000000003."""
    assert SHARE.at_least_as_good(0.41, SHARE.floor(0.44, Margin(0.03)))
    assert not SHARE.at_least_as_good(0.4099999, SHARE.floor(0.44, Margin(0.03)))
    assert ERROR.at_least_as_good(3.3000000000000003, ERROR.floor(3.0, Margin(0.1, relative=True)))
    assert not ERROR.at_least_as_good(3.3000001, ERROR.floor(3.0, Margin(0.1, relative=True)))


def test_values_have_units() -> None:
    assert (SHARE.in_words(0.98765), ERROR.in_words(1234.5678)) == ("98.77%", "1235")
