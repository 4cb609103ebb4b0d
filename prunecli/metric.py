"""What a score is: its name, its unit, and which way is better.

Stage: metric, below all that computes, compares or shows scores. Plain records; never imports
torch.
"""

from dataclasses import dataclass

from prunecli.shares import Margin

SLACK = 1e-9
"""So much of a score is given away, since a difference of floats may lie above what it means."""


@dataclass(frozen=True)
class Metric:
    """One number that says how good a network is.

    Attributes:
        name: as the JSON report and the progress have it.
        title: as tables have it.
        percent: a share of one, shown as a percentage; differences are points.
        higher_is_better: else an error, of which less is better.
        detail: what is counted, where the title does not say it all: `top-1`.
        chance: how the report says what a constant answer reaches.
    """

    name: str
    title: str
    percent: bool
    higher_is_better: bool
    detail: str = ""
    chance: str = "a constant answer scores"

    def at_least_as_good(self, new: float, old: float) -> bool:
        """Whether `new` is no worse than `old`."""
        return new >= old if self.higher_is_better else new <= old

    def in_words(self, value: float) -> str:
        """A value with its unit."""
        return f"{100 * value:.2f}%" if self.percent else f"{value:.4g}"

    def floor(self, value: float, margin: Margin) -> float:
        """What may be left of `value`. A margin that is met exactly is met."""
        loss = margin.amount * (abs(value) if margin.relative else 1.0) + SLACK * abs(value)
        return value - loss if self.higher_is_better else value + loss
