"""Records refuse numbers that no run can use, from Python as from the command line."""

from collections.abc import Callable
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

import prunecli
from prunecli.choices import Quantity
from prunecli.config import DataConfig, MeasureConfig, ModelConfig, RunConfig
from prunecli.errors import ConfigError
from prunecli.removal import Removal, Target, UnitsWanted
from prunecli.tuning import TrainConfig

HALF = Target(Quantity.MACS, 0.5, None, "50%")


def make_run(**fields: object) -> RunConfig:
    return RunConfig(ModelConfig(Path("net.pt")), Removal(units=UnitsWanted(HALF)), **fields)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MeasureConfig(threads=0), "--threads: at least 1 is needed, got 0"),
        (lambda: MeasureConfig(batch=-1), "--latency-batch: at least 1 is needed, got -1"),
        (
            lambda: MeasureConfig(seconds=0.0),
            "--latency-seconds: a positive number is needed, got 0",
        ),
        (
            lambda: MeasureConfig(seconds=float("inf")),
            "--latency-seconds: a positive number is needed, got inf",
        ),
        (lambda: make_run(atol=-1e-4), "--atol: 0 or more is needed, got -0.0001"),
        (lambda: make_run(atol=float("nan")), "--atol: 0 or more is needed, got nan"),
        (lambda: UnitsWanted(HALF, 0), "--round-to: at least 1 is needed, got 0"),
        (lambda: DataConfig(Path("d"), seed=-1), "--seed: 0 to 4294967295 is needed, got -1"),
        (lambda: TrainConfig(seed=2**32), "--seed: 0 to 4294967295 is needed, got 4294967296"),
    ],
)
def test_numbers_that_no_run_can_use_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert caught.value.message == message
    assert caught.value.hint is not None


def test_extremes_that_are_allowed() -> None:
    MeasureConfig(threads=1, batch=1, seconds=1e-6)
    DataConfig(Path("d"), seed=2**32 - 1)
    assert make_run(atol=0.0).dry_run is False


def test_records_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        make_run().atol = 1.0  # type: ignore[misc]


def test_package_offers_what_a_script_needs_and_imports_lazily() -> None:
    assert set(prunecli.__all__) <= set(dir(prunecli)) | {"inspect", "prune", "resume"}
    assert callable(prunecli.prune)
    assert callable(prunecli.inspect)
    assert callable(prunecli.resume)
    with pytest.raises(AttributeError, match="module 'prunecli' has no attribute 'train'"):
        prunecli.train  # noqa: B018
