"""When things go, and whether they come back: a frozen record.

Stage: timing. In: values from the command line or from Python. Out: `Timing`.
"""

import math
from dataclasses import dataclass

from prunecli.choices import Curve, Penalty, PruneSchedule
from prunecli.errors import ConfigError
from prunecli.shares import Margin, check_share, percent


@dataclass(frozen=True)
class Timing:
    """When things go, and whether they come back.

    Attributes:
        schedule: at once, in rounds, or while the network trains.
        rounds: of prune and fine-tune (`iterative`).
        curve, power: how the removed share rises (`gradual`); the power of `polynomial`.
        initial: removed share at the begin, of what is removed in the end.
        begin, end: shares of all training steps between which the removed share rises.
        every: steps between two updates; `None` chooses.
        regrow: share of what is active that is exchanged for pruned weights with the largest
            gradients at each update (RigL, Evci et al. 2020, arXiv:1911.11134); 0 for none.
        dense_epochs: so many of the last epochs train without masks (DSD, Han et al. 2017,
            arXiv:1607.04381); their weights return for good.
        sparse_epochs: epochs of sparse training before anything is removed.
        penalty, penalty_strength: what is added to the loss meanwhile.
        largest_drop: a round that costs more than this, of the leading metric on the validation
            split, is taken back; `None` for no budget.
    """

    schedule: PruneSchedule = PruneSchedule.ONE_SHOT
    rounds: int = 1
    curve: Curve = Curve.POLYNOMIAL
    power: float = 3.0
    initial: float = 0.0
    begin: float = 0.0
    end: float = 0.75
    every: int | None = None
    regrow: float = 0.0
    dense_epochs: float = 0.0
    sparse_epochs: float = 0.0
    penalty: Penalty = Penalty.L1
    penalty_strength: float = 1e-4
    largest_drop: Margin | None = None

    def __post_init__(self) -> None:
        positive = {
            "--rounds": self.rounds,
            "--power": self.power,
            "--every": 1 if self.every is None else self.every,
            "--penalty-strength": self.penalty_strength,
        }
        for flag, value in positive.items():
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{flag}: must be positive, got {value:g}", f"e.g. {flag} 3")
        for flag, value in (
            ("--dense-epochs", self.dense_epochs),
            ("--sparse-epochs", self.sparse_epochs),
        ):
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"{flag}: 0 or more is needed, got {value:g}", f"e.g. {flag} 1")
        for flag, value in (("--initial", self.initial), ("--regrow", self.regrow)):
            check_share(flag, value, top=True)
        if not 0 <= self.begin < self.end <= 1:
            raise ConfigError(
                f"--begin: must come before --end, both between 0% and 100%, got "
                f"{percent(self.begin)} and {percent(self.end)}",
                "e.g. --begin 0% --end 75%",
            )
