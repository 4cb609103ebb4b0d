"""Latency with a fake clock: every number is worked out by hand, nothing depends on the machine."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from test_measure_session import write_linear

from prunecli.config import MeasureConfig
from prunecli.errors import ModelError
from prunecli.measure.latency import Comparison, Latency, Speedup, compare_latency
from prunecli.measure.session import fit_batch
from prunecli.progress import SilentReporter

Cost = Callable[[float, int], float]
"""Seconds of a call, given the time and how many calls this network had before."""


class FakeMachine:
    """A clock, and networks that move it; `log` has the name of every call in order."""

    def __init__(self, costs: dict[str, Cost], batch_sizes: dict[str, int] | None = None) -> None:
        self.costs, self.batch_sizes = costs, batch_sizes or {}
        self.now = 0.0
        self.log: list[str] = []
        self.batches: set[int] = set()
        self.threads: set[int | None] = set()

    def clock(self) -> float:
        return self.now

    def open(self, path: Path, threads: int | None) -> "FakeNetwork":
        self.threads.add(threads)
        return FakeNetwork(self, path.name)

    def compare(self, seconds: float, batch: int = 1, examples: int = 1) -> Comparison:
        return compare_latency(
            {name: Path(name) for name in self.costs},
            (np.zeros((examples, 3), dtype=np.float32),),
            MeasureConfig(seconds=seconds, batch=batch, threads=3),
            SilentReporter(),
            clock=self.clock,
            open_session=self.open,
        )


class FakeNetwork:
    def __init__(self, machine: FakeMachine, name: str) -> None:
        self.machine, self.name = machine, name

    @property
    def batch_size(self) -> int | None:
        return self.machine.batch_sizes.get(self.name)

    def fit(self, examples: Sequence[np.ndarray], size: int) -> tuple[np.ndarray, ...]:
        return tuple(fit_batch(array, size) for array in examples)

    def run(self, batch: Sequence[np.ndarray]) -> np.ndarray:
        machine = self.machine
        machine.now += machine.costs[self.name](machine.now, machine.log.count(self.name))
        machine.log.append(self.name)
        machine.batches.add(len(batch[0]))
        return batch[0]


def constant(seconds: float) -> Cost:
    return lambda _now, _calls: seconds


def turns(log: list[str]) -> list[tuple[str, int]]:
    """Runs of equal names: [('a', 3), ('b', 2), ...]."""
    runs: list[tuple[str, int]] = []
    for name in log:
        if runs and runs[-1][0] == name:
            runs[-1] = (name, runs[-1][1] + 1)
        else:
            runs.append((name, 1))
    return runs


def test_medians_and_speedups() -> None:
    machine = FakeMachine({"a": constant(0.004), "b": constant(0.002), "c": constant(0.001)})
    found = machine.compare(seconds=0.5)
    assert list(found.files) == ["a", "b", "c"]
    for name, milliseconds, speedup in (("a", 4.0, 1.0), ("b", 2.0, 2.0), ("c", 1.0, 4.0)):
        file = found.files[name]
        got = (file.latency.p50_ms, file.latency.low_ms, file.latency.high_ms)
        assert got == pytest.approx((milliseconds,) * 3)
        got = (file.speedup.p50, file.speedup.low, file.speedup.high)
        assert got == pytest.approx((speedup,) * 3)
    assert found.files["a"].speedup == Speedup(1.0, 1.0, 1.0)
    assert (found.batch, found.threads, machine.threads) == (1, 3, {3})


def test_files_take_turns_of_at_least_ten_milliseconds_in_rotating_order() -> None:
    machine = FakeMachine({"a": constant(0.004), "b": constant(0.002), "c": constant(0.5)})
    # 1 ms of warm-up: one call of each, then the rounds begin.
    found = machine.compare(seconds=0.01)
    assert machine.log[:3] == ["a", "b", "c"]
    assert turns(machine.log[3:]) == [
        *(("a", 3), ("b", 5), ("c", 1)),
        *(("b", 5), ("c", 1), ("a", 3)),
        *(("c", 1), ("a", 3), ("b", 5)),
    ]
    assert found.rounds == 3


def test_warm_up_is_not_measured() -> None:
    slow_start: Cost = lambda _now, calls: 1.0 if calls < 2 else 0.001  # noqa: E731
    # Warm-up lasts 2 s; b is so slow that three rounds are all there are, so that a single slow
    # call of a's would show in the quartile.
    machine = FakeMachine({"a": slow_start, "b": constant(60.0)})
    found = machine.compare(seconds=20.0)
    assert found.rounds == 3
    assert found.files["a"].latency.high_ms == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("call_s", "seconds", "rounds"),
    [
        pytest.param(0.03125, 1.0, 32, id="as long as asked for"),
        pytest.param(0.125, 1.0, 20, id="longer, for enough rounds"),
        pytest.param(0.25, 1.0, 12, id="until three times the time"),
        pytest.param(4.0, 1.0, 3, id="three rounds at the very least"),
    ],
)
def test_number_of_rounds(call_s: float, seconds: float, rounds: int) -> None:
    machine = FakeMachine({"a": constant(call_s), "b": constant(call_s)})
    assert machine.compare(seconds).rounds == rounds


def test_a_machine_that_slows_down_does_not_change_the_speedup() -> None:
    def slowing(seconds: float) -> Cost:
        return lambda now, _calls: seconds * (1.0 + 4.0 * (now > 1.0))

    machine = FakeMachine({"a": slowing(0.016), "b": slowing(0.008)})
    found = machine.compare(seconds=2.0)
    faster = found.files["b"].speedup
    assert (faster.p50, faster.low, faster.high) == pytest.approx((2.0, 2.0, 2.0))
    # Measured one after the other, the same machine says that b is slower.
    assert found.files["a"].latency.low_ms < found.files["b"].latency.high_ms


def test_spreads_are_percentiles() -> None:
    # One call a turn; b's calls take 10, 20, ..., 50 ms in turn, a's always 100 ms.
    steps: Cost = lambda _now, calls: 0.01 * (1 + (calls - 1) % 5)  # noqa: E731
    machine = FakeMachine({"a": constant(0.1), "b": steps})
    found = machine.compare(seconds=0.01)  # warm-up: one call; cap reached after 3 rounds
    assert found.rounds == 3
    assert found.files["b"].latency.p50_ms == pytest.approx(20.0)
    assert found.files["b"].latency.low_ms == pytest.approx(15.0)
    assert found.files["b"].latency.high_ms == pytest.approx(25.0)
    # Ratios 10, 5, 3.33: the 10th percentile lies a fifth of the way from 3.33 to 5.
    assert found.files["b"].speedup.p50 == pytest.approx(5.0)
    assert found.files["b"].speedup.low == pytest.approx(10 / 3 + 0.2 * (5 - 10 / 3))
    assert found.files["b"].speedup.high == pytest.approx(9.0)


def test_one_interrupted_call_does_not_decide_a_turn() -> None:
    hiccup: Cost = lambda _now, calls: 0.5 if calls % 10 == 9 else 0.001  # noqa: E731
    machine = FakeMachine({"a": constant(0.002), "b": hiccup})
    found = machine.compare(seconds=10.0)
    assert found.files["b"].speedup.low == pytest.approx(2.0)
    assert found.files["b"].speedup.high == pytest.approx(2.0)


def test_batch_is_the_one_asked_for() -> None:
    machine = FakeMachine({"a": constant(0.5)})
    assert machine.compare(seconds=0.1, batch=4, examples=3).batch == 4
    assert machine.batches == {4}


def test_a_fixed_batch_holds_for_all_files() -> None:
    machine = FakeMachine({"a": constant(0.5), "b": constant(0.5)}, {"b": 2})
    assert machine.compare(seconds=0.1, batch=1, examples=1).batch == 2
    assert machine.batches == {2}


def test_different_fixed_batches_are_refused() -> None:
    machine = FakeMachine({"a": constant(0.5), "b": constant(0.5)}, {"a": 1, "b": 2})
    with pytest.raises(
        ModelError, match=r"latency: files must take the same batch, got \{'a': 1, 'b': 2\}"
    ):
        machine.compare(seconds=0.1)


def test_with_onnxruntime_itself(tmp_path: Path) -> None:
    files = {
        "original": write_linear(tmp_path / "a.onnx", "batch"),
        "pruned": write_linear(tmp_path / "b.onnx", 2),
    }
    config = MeasureConfig(threads=1, batch=1, seconds=0.02)
    found = compare_latency(files, (np.ones((1, 3), np.float32),), config, SilentReporter())
    assert list(found.files) == ["original", "pruned"]
    assert found.rounds >= 3
    assert found.batch == 2
    assert all(isinstance(file.latency, Latency) for file in found.files.values())
    assert all(
        0 < file.latency.low_ms <= file.latency.p50_ms <= file.latency.high_ms
        for file in found.files.values()
    )
