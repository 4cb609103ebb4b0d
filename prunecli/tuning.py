"""How a pruned network is trained again.

Stage: tuning. In: values. Out: a record that has been checked. Never imports torch.
"""

import math
from dataclasses import dataclass

from prunecli.choices import DeviceName, OptimizerName, Precision, ScheduleName, TrainScope
from prunecli.errors import ConfigError

LARGEST_SEED = 2**32 - 1
"""All generators in use take this."""

DECAYING = (ScheduleName.STEP, ScheduleName.EXPONENTIAL)
"""Schedules that multiply the rate by a factor again and again."""


def check_seed(seed: int) -> None:
    """Raise for a seed that some generator does not take.

    Raises:
        ConfigError: such a seed.
    """
    if not 0 <= seed <= LARGEST_SEED:
        raise ConfigError(f"--seed: 0 to {LARGEST_SEED} is needed, got {seed}", "e.g. --seed 0")


@dataclass(frozen=True)
class TrainConfig:
    """How the pruned network is fine-tuned. `None` always means: what suits the rest.

    Attributes:
        epochs: passes over the training data; 0 trains nothing.
        lr: peak learning rate.
        optimizer: an `OptimizerName`, or the name of a class in `torch.optim`.
        schedule: how the rate changes from step to step.
        weight_decay: pull of weights towards zero (L2), none on norms and biases.
        momentum: of optimizers that have it.
        warm_up: share of the steps in which the rate first rises.
        decay: factor of a decaying schedule.
        every: epochs after which the rate has been multiplied with it once.
        staircase: whether an exponential schedule falls in steps.
        l1: size of the pull of weights towards zero that does not depend on theirs (L1), none on
            norms and biases.
        clip: largest norm of all gradients together.
        layer_decay: factor of the rate from each layer to the one before it.
        scope: which layers are changed: a `TrainScope`, or patterns, comma-separated.
        label_smoothing: share of each label that is spread over all classes.
        distill: part of the loss that is the distance to the original's outputs, 0-1.
        temperature: divides the outputs before they are compared as distributions.
        precision: of forward and backward passes.
        accumulate: batches whose gradients are added up before a step.
    """

    epochs: float = 1
    lr: float | None = None
    batch_size: int = 32
    optimizer: str = OptimizerName.NESTEROV
    schedule: ScheduleName = ScheduleName.ONE_CYCLE
    weight_decay: float = 5e-4
    momentum: float | None = None
    seed: int = 0
    device: DeviceName = DeviceName.AUTO
    warm_up: float | None = None
    decay: float | None = None
    every: float | None = None
    staircase: bool = False
    l1: float = 0.0
    clip: float | None = None
    layer_decay: float = 1.0
    scope: str = TrainScope.ALL
    label_smoothing: float = 0.0
    distill: float | None = None
    temperature: float = 4.0
    precision: Precision = Precision.FP32
    accumulate: int = 1

    @property
    def patterns(self) -> tuple[str, ...]:
        """Of layers that alone are changed; empty where `scope` is a `TrainScope`."""
        if self.scope in tuple(TrainScope):
            return ()
        return tuple(part.strip() for part in self.scope.split(","))

    def __post_init__(self) -> None:
        check_seed(self.seed)
        for flag, value, least in (
            ("--weight-decay", self.weight_decay, 0.0),
            ("--l1-decay", self.l1, 0.0),
        ):
            if not (math.isfinite(value) and value >= least):
                raise ConfigError(f"{flag}: 0 or more is needed, got {value:g}", f"e.g. {flag} 0")
        for flag, share, hint in (
            ("--momentum", self.momentum, "e.g. --momentum 0.9"),
            ("--warm-up", self.warm_up, "0.1 lets the rate rise over a tenth of the training"),
            ("--label-smoothing", self.label_smoothing, "e.g. --label-smoothing 0.1"),
        ):
            if share is not None and not 0 <= share < 1:
                raise ConfigError(f"{flag}: 0 up to 1 is needed, got {share:g}", hint)
        for flag, positive, hint in (
            ("--temperature", self.temperature, "e.g. --temperature 4"),
            ("--clip", self.clip, "e.g. --clip 1"),
            ("--lr-every", self.every, "e.g. --lr-every 1 for every epoch"),
        ):
            if positive is not None and not (math.isfinite(positive) and positive > 0):
                raise ConfigError(f"{flag}: a positive number is needed, got {positive:g}", hint)
        for flag, factor in (("--lr-decay", self.decay), ("--layer-decay", self.layer_decay)):
            if factor is not None and not 0 < factor <= 1:
                raise ConfigError(
                    f"{flag}: more than 0 and at most 1 is needed, got {factor:g}",
                    f"e.g. {flag} 0.5",
                )
        if self.distill is not None and not 0 <= self.distill <= 1:
            raise ConfigError(
                f"--distill: a share from 0 to 1 is needed, got {self.distill:g}",
                "0 learns from labels alone, 1 from the original alone",
            )
        if self.accumulate < 1:
            raise ConfigError(
                f"--accumulate: at least 1 is needed, got {self.accumulate}",
                "1 steps after every batch",
            )
        _check_idle(self)


def _check_idle(config: TrainConfig) -> None:
    """Refuse what would have no effect.

    Raises:
        ConfigError: such a value.
    """
    schedule = config.schedule
    decaying = " and ".join(item.value for item in DECAYING)
    for flag, given in (("--lr-decay", config.decay), ("--lr-every", config.every)):
        if given is not None and schedule not in DECAYING:
            raise ConfigError(
                f"{flag}: is for the schedules {decaying}, got {schedule.value}",
                "use --lr-schedule step",
            )
    if config.staircase and schedule is not ScheduleName.EXPONENTIAL:
        raise ConfigError(
            f"--staircase: is for the schedule exponential, got {schedule.value}",
            "use --lr-schedule exponential",
        )
    if config.label_smoothing and config.distill == 1.0:
        raise ConfigError(
            "--label-smoothing: changes labels, and with --distill 1 none are used",
            "leave one of them out",
        )
