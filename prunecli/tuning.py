"""How a pruned network is trained again.

Stage: tuning. In: values. Out: a record that has been checked. Never imports torch.
"""

from dataclasses import dataclass, replace

from prunecli.choices import (
    Augment,
    DeviceName,
    OptimizerName,
    Precision,
    ScheduleName,
    TrainScope,
)
from prunecli.errors import ConfigError
from prunecli.ranges import (
    ALPHA,
    BELOW_ONE,
    FACTOR,
    INSIDE,
    NOT_NEGATIVE,
    POSITIVE,
    SHARE,
    WHOLE,
    check_range,
)
from prunecli.shares import Margin

LARGEST_SEED = 2**32 - 1
"""All generators in use take this."""

WEIGHT_DECAY = 5e-4
"""L2 decay where the user says nothing and the optimizer has any."""

DECAYING = (ScheduleName.STEP, ScheduleName.EXPONENTIAL)
"""Schedules that multiply the rate by a factor again and again."""


def check_seed(seed: int) -> None:
    """Raise for a seed that some generator does not take.

    Raises:
        ConfigError: such a seed.
    """
    if not 0 <= seed <= LARGEST_SEED:
        raise ConfigError(f"--seed: 0 to {LARGEST_SEED} is needed, got {seed}", "e.g. --seed 0")


BLOCKS = 10
"""Training until the network has recovered may take so many times the epochs, where the user does
not say how many."""


@dataclass(frozen=True)
class TrainConfig:
    """How the pruned network is fine-tuned. `None` always means: what suits the rest.

    Attributes:
        epochs: passes over the training data; 0 trains nothing.
        lr: peak learning rate.
        optimizer: an `OptimizerName`, or the name of a class in `torch.optim`.
        schedule: how the rate changes from step to step.
        weight_decay: pull of weights towards zero (L2), none on norms and biases; see `l2`.
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
        features: weight of the distance between features of both networks; 0 leaves it out.
        temperature: divides the outputs before they are compared as distributions.
        precision: of forward and backward passes.
        accumulate: batches whose gradients are added up before a step.
        patience: stop after so many epochs without a better score on `choose`.
        until: train on, `epochs` at a time, until the score on the validation split is within it.
        max_epochs: at most so many, with `until`; see `longest`.
        ema: decay of the average of the weights, which is scored and kept instead of them.
        mixup, cutmix: of the Beta distribution that shares of mixed examples are drawn from.
        augment: how much training examples are changed at random.
    """

    epochs: float = 1
    lr: float | None = None
    batch_size: int = 32
    optimizer: str = OptimizerName.NESTEROV
    schedule: ScheduleName = ScheduleName.ONE_CYCLE
    weight_decay: float | None = None
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
    features: float = 0.0
    temperature: float = 4.0
    precision: Precision = Precision.FP32
    accumulate: int = 1
    patience: int | None = None
    until: Margin | None = None
    max_epochs: float | None = None
    ema: float | None = None
    mixup: float | None = None
    cutmix: float | None = None
    augment: Augment = Augment.AUTO

    @property
    def patterns(self) -> tuple[str, ...]:
        """Of layers that alone are changed; empty where `scope` is a `TrainScope`."""
        if self.scope in tuple(TrainScope):
            return ()
        return tuple(part.strip() for part in self.scope.split(","))

    @property
    def l2(self) -> float:
        """The L2 decay that is used."""
        return WEIGHT_DECAY if self.weight_decay is None else self.weight_decay

    @property
    def longest(self) -> float:
        """The most epochs that are trained."""
        if self.until is None:
            return self.epochs
        return BLOCKS * self.epochs if self.max_epochs is None else self.max_epochs

    def __post_init__(self) -> None:
        check_seed(self.seed)
        _check_ranges(self)
        if "" in self.patterns:
            raise ConfigError(
                "--train-scope: all, local, or patterns separated by commas are needed, got "
                f"{self.scope!r}",
                "e.g. --train-scope 'layer3.*,fc'",
            )
        if self.accumulate < 1:
            raise ConfigError(
                f"--accumulate: at least 1 is needed, got {self.accumulate}",
                "1 steps after every batch",
            )
        _check_idle(self)


def _check_ranges(config: TrainConfig) -> None:
    """Refuse numbers that mean nothing.

    Raises:
        ConfigError: such a number.
    """
    for flag, value, allowed, hint in (
        ("--weight-decay", config.weight_decay, NOT_NEGATIVE, "e.g. --weight-decay 0"),
        ("--l1-decay", config.l1, NOT_NEGATIVE, "e.g. --l1-decay 0"),
        ("--momentum", config.momentum, BELOW_ONE, "e.g. --momentum 0.9"),
        (
            *("--warm-up", config.warm_up, BELOW_ONE),
            "0.1 lets the rate rise over a tenth of the training",
        ),
        ("--label-smoothing", config.label_smoothing, BELOW_ONE, "e.g. --label-smoothing 0.1"),
        (
            *("--distill-features", config.features, NOT_NEGATIVE),
            "1 makes features count like the outputs",
        ),
        ("--temperature", config.temperature, POSITIVE, "e.g. --temperature 4"),
        ("--clip", config.clip, POSITIVE, "e.g. --clip 1"),
        ("--lr-every", config.every, POSITIVE, "e.g. --lr-every 1 for every epoch"),
        ("--patience", config.patience, WHOLE, "e.g. --patience 3"),
        ("--max-epochs", config.max_epochs, POSITIVE, "e.g. --max-epochs 20"),
        ("--ema", config.ema, INSIDE, "e.g. --ema 0.999"),
        ("--mixup", config.mixup, ALPHA, "e.g. --mixup 0.2"),
        ("--cutmix", config.cutmix, ALPHA, "e.g. --cutmix 1"),
        ("--lr-decay", config.decay, FACTOR, "e.g. --lr-decay 0.5"),
        ("--layer-decay", config.layer_decay, FACTOR, "e.g. --layer-decay 0.5"),
        (
            *("--distill", config.distill, SHARE),
            "0 learns from labels alone, 1 from the original alone",
        ),
    ):
        check_range(flag, value, allowed, hint)


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
    if config.max_epochs is not None and config.until is None:
        raise ConfigError(
            "--max-epochs: has no effect without --until-recovered",
            "use --epochs, or add --until-recovered 0.3pp",
        )
    if config.longest < config.epochs:
        raise ConfigError(
            f"--max-epochs: at least --epochs {config.epochs:g} is needed, got {config.longest:g}",
            "raise --max-epochs, or lower --epochs",
        )
    if config.label_smoothing and config.distill == 1.0:
        raise ConfigError(
            "--label-smoothing: changes labels, and with --distill 1 none are used",
            "leave one of them out",
        )


def training_again(config: TrainConfig, epochs: float) -> TrainConfig:
    """The same training for so many epochs of its own, no more and no fewer."""
    plain = replace(config, epochs=epochs, patience=None, until=None, max_epochs=None)
    if epochs:
        return plain
    return replace(plain, features=0.0, ema=None, mixup=None, cutmix=None, augment=Augment.AUTO)
