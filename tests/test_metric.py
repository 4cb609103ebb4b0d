"""Which way a metric goes, and what may be lost of it."""

import pytest

from prunecli.metric import Metric

SHARE = Metric("accuracy", "accuracy", percent=True, higher_is_better=True)
ERROR = Metric("mse", "MSE", percent=False, higher_is_better=False)


def test_no_worse() -> None:
    assert SHARE.at_least_as_good(0.9, 0.9)
    assert not SHARE.at_least_as_good(0.8, 0.9)
    assert ERROR.at_least_as_good(0.8, 0.9)
    assert not ERROR.at_least_as_good(0.9, 0.8)


def test_what_may_be_left() -> None:
    assert SHARE.floor(0.9, 0.01) == pytest.approx(0.89)
    assert SHARE.floor(0.9, 0.1, relative=True) == pytest.approx(0.81)
    assert ERROR.floor(2.0, 0.05, relative=True) == pytest.approx(2.1)
    # Of a score below zero, a share is taken of its size.
    assert Metric("r2", "R2", False, True).floor(-2.0, 0.1, relative=True) == pytest.approx(-2.2)


def test_values_have_units() -> None:
    assert (SHARE.in_words(0.98765), ERROR.in_words(1234.5678)) == ("98.77%", "1235")
