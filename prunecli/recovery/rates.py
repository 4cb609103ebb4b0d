"""Learning rates.

Stage: recovery. In: the training configuration. Out: the rate of every step as a pure function.
"""

import math
from dataclasses import dataclass

from prunecli.choices import OptimizerName, ScheduleName
from prunecli.recovery.pace import Pace
from prunecli.tuning import TrainConfig

DEFAULT_LR = {
    OptimizerName.SGD: 0.05,
    OptimizerName.MOMENTUM: 0.01,
    OptimizerName.NESTEROV: 0.01,
    OptimizerName.ADAM: 1e-3,
    OptimizerName.ADAMW: 1e-3,
    OptimizerName.RMSPROP: 5e-4,
    OptimizerName.ADAGRAD: 1e-2,
}
"""Peak learning rates for fine-tuning a network that has just lost a part of itself, in batches of
`LR_BATCH`."""

OTHER_LR = 1e-3
"""For all other optimizers: most of them scale gradients as Adam does."""

LR_BATCH = 32

MASKED = 2.0
"""Times the rate where single weights are masked. Measured on ResNet-20, 2 epochs: at 0.01 and 0.02
80% masked ended with 86.6% and 87.0%, half of the MACs in fewer channels with 86.2% and 85.3%."""

USUAL_DAMAGE = {False: 0.11, True: 0.08}
"""At which damage the rates above were measured: half of the MACs of ResNet-20, and 80% masked. A
network that has lost less would be moved about more than it has to learn: ResNet-56 at half of the
MACs (damage 0.057), one epoch: 86.4% at 0.01, 88.3% at 0.003; 86.4% before any training."""

LEAST_SHARE = 0.05
"""Of the usual rate, however little was lost."""

WARM_UP = 0.1
"""Share of all steps in which a one-cycle schedule rises to the peak."""

START_SHARE = 1 / 25
"""A warm-up starts at this share of the peak."""

DECAY, PHASES = 0.1, 3
"""What a decaying schedule multiplies the rate by, and how often in a run."""


def default_lr(config: TrainConfig, *, masked: bool = False, damage: float | None = None) -> float:
    """Falls with the square of the damage where there is less than usual. Grows with the square
    root of the examples of a step, as the noise of its gradient falls (Krizhevsky 2014,
    arXiv:1404.5997; Malladi et al. 2022, arXiv:2205.10287, for Adam)."""
    known = {name.value: rate for name, rate in DEFAULT_LR.items()}
    factor = MASKED if masked else 1.0
    if damage is not None:
        factor *= min(1.0, max((damage / USUAL_DAMAGE[masked]) ** 2, LEAST_SHARE))
    examples = config.batch_size * config.accumulate
    return factor * known.get(config.optimizer, OTHER_LR) * math.sqrt(examples / LR_BATCH)


def peak_lr(config: TrainConfig) -> float:
    """The largest rate of the run."""
    return default_lr(config) if config.lr is None else config.lr


@dataclass(frozen=True)
class Rates:
    """The rate of every step.

    Attributes:
        peak: the largest.
        steps: of the whole run.
        warm_up: steps in which the rate rises.
        decay, every: a decaying schedule multiplies by `decay` once in `every` steps.
        staircase: all at once, not little by little.
    """

    schedule: ScheduleName
    peak: float
    steps: int
    warm_up: int
    decay: float
    every: float
    staircase: bool

    def at(self, step: int) -> float:
        """Rate of `step`, counted from 0.

        After the warm-up, one-cycle (Smith & Topin 2018, arXiv:1708.07120) and cosine (Loshchilov &
        Hutter 2017, arXiv:1608.03983) end near 0 along half a cosine, linear along a line.
        """
        if step < self.warm_up:
            return self.peak * (START_SHARE + (1 - START_SHARE) * step / self.warm_up)
        since = step - self.warm_up
        done = since / max(self.steps - self.warm_up, 1)
        if self.schedule in (ScheduleName.ONE_CYCLE, ScheduleName.COSINE):
            return self.peak * 0.5 * (1 + math.cos(math.pi * done))
        if self.schedule is ScheduleName.LINEAR:
            return self.peak * (1 - done)
        if self.schedule is ScheduleName.CONSTANT:
            return self.peak
        times = since / self.every
        return self.peak * self.decay ** (math.floor(times) if self.staircase else times)


def rates_of(config: TrainConfig, pace: Pace) -> Rates:
    """The rates of a run of that length.

    One-cycle rises over `WARM_UP` of the steps, which gives batch norm and momentum time to settle
    after the cut; the others only where that is asked for.
    """
    share = config.warm_up
    if share is None:
        share = WARM_UP if config.schedule is ScheduleName.ONE_CYCLE else 0.0
    every = pace.steps / PHASES if config.every is None else config.every * pace.steps_per_epoch
    return Rates(
        config.schedule,
        peak_lr(config),
        pace.steps,
        math.ceil(share * pace.steps),
        DECAY if config.decay is None else config.decay,
        every,
        config.staircase or config.schedule is ScheduleName.STEP,
    )
