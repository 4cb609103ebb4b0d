"""How the removed share rises while a network trains.

Stage: recovery. In: `removal.Timing`. Out: the share at any point of the run, and the steps at
which masks change. Pure functions; never touches a network.

A share is one of what is removed in the end: 0 is nothing, 1 the whole of the target.
"""

import math
from collections.abc import Callable, Mapping

from prunecli.choices import Curve
from prunecli.timing import Timing

UPDATES = 30
"""Where the number of steps between two updates is left open, a long rise has 20 to 50 updates."""

STEEPNESS = 5.0
"""The exponential curve has done 1 - exp(-5/2), 92%, of its rise at its middle."""


def polynomial(time: float, power: float) -> float:
    """1 - (1 - t)^p: what is left falls fast while there is much of it (Zhu & Gupta 2017,
    arXiv:1710.01878, with p = 3)."""
    return 1.0 - math.pow(1.0 - time, power)


def linear(time: float, power: float) -> float:
    """Equal steps."""
    return time


def cosine(time: float, power: float) -> float:
    """Half a cosine: slow at both ends."""
    return (1.0 - math.cos(math.pi * time)) / 2.0


def exponential(time: float, power: float) -> float:
    """What is missing decays at a constant rate, shifted and scaled so that it ends at zero."""
    return math.expm1(-STEEPNESS * time) / math.expm1(-STEEPNESS)


CURVES: Mapping[Curve, Callable[[float, float], float]] = {
    Curve.POLYNOMIAL: polynomial,
    Curve.LINEAR: linear,
    Curve.COSINE: cosine,
    Curve.EXPONENTIAL: exponential,
}
"""Functions of the time within the rise and of the power, from 0 at time 0 to 1 at time 1."""


def removed_share(progress: float, timing: Timing) -> float:
    """The share that is removed at `progress`, a share of all steps: nothing before `begin`, all
    of it from `end` on."""
    if progress < timing.begin:
        return 0.0
    if progress >= timing.end:
        return 1.0
    return _risen((progress - timing.begin) / (timing.end - timing.begin), timing)


def updates(steps: int, timing: Timing) -> dict[int, float]:
    """Steps before which masks change -> the share that is removed from then on.

    The first is the one nearest to `begin` and has the initial share, the last is nearest to
    `end` and has exactly 1; at least the last of the `steps` is trained after it.
    """
    last = min(round(timing.end * steps), steps - 1)
    first = min(round(timing.begin * steps), last)
    every = timing.every or max(1, round((last - first) / UPDATES))
    found = {
        step: _risen((step - first) / (last - first), timing) for step in range(first, last, every)
    }
    return {**found, last: 1.0}


def decayed(share: float, step: int, steps: Mapping[int, float]) -> float:
    """What is left of `share` at `step` when it falls along half a cosine from the first of the
    `updates` to nothing at the last (Evci et al. 2020, arXiv:1911.11134)."""
    first, last = min(steps), max(steps)
    time = (step - first) / (last - first) if last > first else 1.0
    return share * (1.0 + math.cos(math.pi * time)) / 2.0


def _risen(time: float, timing: Timing) -> float:
    return timing.initial + (1.0 - timing.initial) * CURVES[timing.curve](time, timing.power)
