"""What a score is: its name, its unit, and which way is better.

Stage: metric, below all that computes, compares or shows scores. Plain records; never imports
torch.
"""

from dataclasses import dataclass


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

    def floor(self, value: float, drop: float, *, relative: bool = False) -> float:
        """What may be left of `value` when `drop` may be lost.

        Args:
            drop: a share: of the value itself if `relative`, else one to be taken off it.
        """
        loss = abs(value) * drop if relative else drop
        return value - loss if self.higher_is_better else value + loss
