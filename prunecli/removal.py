"""What the user wants removed, how it is judged, and when: frozen records.

Stage: removal. In: values from the command line (see `parsing`) or from Python. Out: records.
Never imports torch, never touches a network.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase

from prunecli.choices import (
    CRITERIA,
    DEFAULT_CRITERION,
    SCHEDULES,
    UNIT_STRATEGIES,
    Criterion,
    PruneSchedule,
    Quantity,
    Scope,
    Strategy,
    needs_data,
    needs_loss,
)
from prunecli.errors import ConfigError
from prunecli.shares import percent
from prunecli.timing import Timing


@dataclass(frozen=True)
class Target:
    """How much of the network may stay.

    Exactly one of `share` and `absolute` is set.

    Attributes:
        quantity: what is counted.
        share: the part of the original that may stay, in (0, 1).
        absolute: the number (MACs at batch 1, or parameters) that may stay.
        text: the target as the user wrote it.
    """

    quantity: Quantity
    share: float | None
    absolute: float | None
    text: str

    def limit(self, original: float) -> float:
        """The largest value allowed, given the original network's value."""
        if self.absolute is not None:
            return self.absolute
        # 10% of 20 channels are 2, though 1 - 0.9 is a little less than 0.1 in floating point.
        return round(original * (self.share or 0.0), 6)

    def in_words(self) -> str:
        """The target as a sentence fragment, e.g. `keep at most 50% of the MACs`."""
        noun = {
            Quantity.MACS: "MACs",
            Quantity.PARAMS: "parameters",
            Quantity.CHANNELS: "channels",
        }[self.quantity]
        if self.absolute is not None:
            return f"keep at most {self.text} {noun}"
        if self.quantity is Quantity.CHANNELS:
            return f"remove {percent(1 - (self.share or 0.0))} of the {noun}"
        return f"keep at most {percent(self.share or 0.0)} of the {noun}"


@dataclass(frozen=True)
class Threshold:
    """What scores at or below it goes.

    Attributes:
        value: on the criterion's own scale; with `dynamic`, a number of standard deviations.
        dynamic: per layer. Single weights: those within `value` standard deviations of the
            layer's weights around zero go (Han et al. 2015, arXiv:1506.02626). Units: those whose
            score is at least `value` standard deviations below the mean of their group.
    """

    value: float
    dynamic: bool = False

    def in_words(self) -> str:
        """As it is written on the command line."""
        return f"{self.value:g}sd" if self.dynamic else f"{self.value:g}"


@dataclass(frozen=True)
class LayerRule:
    """The share of what matching layers have that goes: `layer3.*=70%`."""

    pattern: str
    share: float

    def fits(self, layer: str) -> bool:
        """Whether the pattern matches a layer's name."""
        return fits(self.pattern, layer)


def fits(pattern: str, layer: str) -> bool:
    """Whether a shell-style pattern matches a layer's name, or that of a module it is part of:
    `layer3` and `layer3.*` both match `layer3.0.conv1`."""
    parts = layer.split(".")
    names = (".".join(parts[: end + 1]) for end in range(len(parts)))
    return any(fnmatchcase(name, pattern) for name in names)


class PatternKind(StrEnum):
    """Which single weights may go."""

    UNSTRUCTURED = "unstructured"
    N_OF_M = "n:m"
    BLOCK = "block"


@dataclass(frozen=True)
class Pattern:
    """The pattern of a weight mask.

    Attributes:
        kind: any weights; N of every M consecutive inputs stay; whole blocks.
        first, second: N and M, or a block's rows (outputs) and columns (inputs).
    """

    kind: PatternKind = PatternKind.UNSTRUCTURED
    first: int = 1
    second: int = 1

    def __post_init__(self) -> None:
        if self.kind is PatternKind.N_OF_M and not 0 < self.first < self.second:
            raise ConfigError(
                f"--pattern: N:M keeps N of every M weights, 0 < N < M, got {self.in_words()}",
                "e.g. --pattern 2:4",
            )
        if self.kind is PatternKind.BLOCK and (min(self.first, self.second) < 1):
            raise ConfigError(
                f"--pattern: a block has at least one row and column, got {self.in_words()}",
                "e.g. --pattern 4x1",
            )

    def in_words(self) -> str:
        """As it is written on the command line."""
        if self.kind is PatternKind.UNSTRUCTURED:
            return self.kind.value
        return f"{self.first}{':' if self.kind is PatternKind.N_OF_M else 'x'}{self.second}"


@dataclass(frozen=True)
class Mixture:
    """A criterion, or several whose normalised scores are added up with weights."""

    parts: tuple[tuple[Criterion, float], ...]

    def in_words(self) -> str:
        """As it is written on the command line."""
        if len(self.parts) == 1:
            return self.parts[0][0].value
        return ",".join(f"{criterion.value}:{weight:g}" for criterion, weight in self.parts)

    def needs_data(self, strategy: Strategy) -> bool:
        """Whether calibration examples are needed."""
        return any(needs_data(strategy, criterion) for criterion, _ in self.parts)

    def needs_loss(self, strategy: Strategy) -> bool:
        """Whether these examples need targets."""
        return any(needs_loss(strategy, criterion) for criterion, _ in self.parts)


def mixture(criterion: Criterion) -> Mixture:
    """A single criterion."""
    return Mixture(((criterion, 1.0),))


@dataclass(frozen=True)
class Choosing:
    """How it is decided what goes, whatever is removed.

    Attributes:
        threshold: instead of a target.
        scope: what scores are compared with.
        rules: shares for single layers; the last one that matches counts.
        keep: patterns of layers that stay as they are.
    """

    threshold: Threshold | None = None
    scope: Scope = Scope.GLOBAL
    rules: tuple[LayerRule, ...] = ()
    keep: tuple[str, ...] = ()

    def kept(self, layer: str) -> bool:
        """Whether a layer must stay as it is."""
        return any(fits(pattern, layer) for pattern in self.keep)

    def share(self, layer: str) -> float | None:
        """The share of a layer that must go, where a rule says so."""
        found = [rule.share for rule in self.rules if rule.fits(layer)]
        return found[-1] if found else None


@dataclass(frozen=True)
class UnitsWanted:
    """How many whole units go (`structured`, `neuron`).

    Attributes:
        target: how much may stay; `None` where a threshold decides.
        round_to: widths stay on multiples of this where a layer is wide enough; 1 for none.
    """

    target: Target | None
    round_to: int = 16

    def __post_init__(self) -> None:
        if self.round_to < 1:
            raise ConfigError(
                f"--round-to: at least 1 is needed, got {self.round_to}", "e.g. --round-to 1"
            )


@dataclass(frozen=True)
class LayersWanted:
    """How many residual blocks go (`layer`): exactly one of `count` and `share` is set."""

    count: int | None = None
    share: float | None = None

    def number(self, blocks: int) -> int:
        """So many of `blocks`."""
        return self.count if self.count is not None else round(blocks * (self.share or 0.0))

    def in_words(self) -> str:
        """As it is written on the command line."""
        return str(self.count) if self.count is not None else percent(self.share or 0.0)


@dataclass(frozen=True)
class WeightsWanted:
    """How many single weights go (`weight`).

    Attributes:
        sparsity: share of the prunable weights that goes; `None` where a threshold or the
            pattern decides.
        pattern: which may go together.
        biases: biases and the parameters of norms may go too.
    """

    sparsity: float | None = None
    pattern: Pattern = field(default_factory=Pattern)
    biases: bool = False


@dataclass(frozen=True)
class Removal:
    """Everything about what goes.

    Attributes:
        strategies: in the order in which they are applied.
        criteria: per strategy; the default where missing.
        calibration_samples: examples for criteria that look at data.
    """

    strategies: tuple[Strategy, ...] = (Strategy.STRUCTURED,)
    criteria: tuple[tuple[Strategy, Mixture], ...] = ()
    choosing: Choosing = field(default_factory=Choosing)
    units: UnitsWanted = field(default_factory=lambda: UnitsWanted(None))
    layers: LayersWanted = field(default_factory=LayersWanted)
    weights: WeightsWanted = field(default_factory=WeightsWanted)
    timing: Timing = field(default_factory=Timing)
    calibration_samples: int = 512

    def __post_init__(self) -> None:
        if self.calibration_samples < 1:
            raise ConfigError(
                f"--calibration-samples: at least 1 is needed, got {self.calibration_samples}",
                "e.g. --calibration-samples 512",
            )
        for strategy in self.strategies:
            _check_criteria(strategy, self.criterion(strategy))
            _check_schedule(strategy, self.timing.schedule)
        _check_together(self)

    @property
    def by_units(self) -> Strategy | None:
        """The strategy among these that removes whole units."""
        own = [item for item in self.strategies if item in UNIT_STRATEGIES]
        return own[0] if own else None

    def criterion(self, strategy: Strategy) -> Mixture:
        """What `strategy` is judged by."""
        return dict(self.criteria).get(strategy) or mixture(DEFAULT_CRITERION[strategy])


def _check_criteria(strategy: Strategy, mix: Mixture) -> None:
    for criterion, _ in mix.parts:
        if criterion in CRITERIA[strategy]:
            continue
        others = [item.value for item in Strategy if criterion in CRITERIA[item]]
        allowed = ", ".join(item.value for item in CRITERIA[strategy])
        raise ConfigError(
            f"--criterion: {criterion.value} does not judge what --strategy {strategy.value} "
            f"removes; that takes one of {allowed}",
            f"{criterion.value} works with --strategy {' or '.join(others)}",
        )


def _check_schedule(strategy: Strategy, schedule: PruneSchedule) -> None:
    if schedule not in SCHEDULES[strategy]:
        allowed = " or ".join(item.value for item in SCHEDULES[strategy])
        raise ConfigError(
            f"--schedule: a {strategy.value} is there or not, nothing of it can go while the "
            f"network trains, got {schedule.value}",
            f"use --schedule {allowed}",
        )


def _check_together(removal: Removal) -> None:
    """Refuse what cannot be done together."""
    names = ",".join(item.value for item in removal.strategies)
    timing, pattern = removal.timing, removal.weights.pattern
    units = [item for item in removal.strategies if item in UNIT_STRATEGIES]
    if len(set(removal.strategies)) < len(removal.strategies) or len(units) > 1:
        raise ConfigError(
            f"--strategy: each kind of thing at most once, got {names}",
            "structured and neuron remove the same units: name one of them; prune a second time "
            "from the .pt2 file for the other",
        )
    if removal.choosing.threshold is not None:
        if len(removal.strategies) > 1:
            raise ConfigError(
                f"--threshold: serves one strategy, got --strategy {names}",
                "give each strategy its own target instead",
            )
        _one_shot_only("--threshold", "is the same in every round", timing.schedule)
    if Strategy.WEIGHT in removal.strategies:
        threshold, mix = removal.choosing.threshold, removal.criterion(Strategy.WEIGHT)
        if threshold is not None and threshold.dynamic and mix != mixture(Criterion.L1):
            raise ConfigError(
                f"--threshold: {threshold.in_words()} counts standard deviations of the weights, "
                f"which only l1 is measured in, got --criterion {mix.in_words()}",
                "use --criterion l1, or an absolute threshold",
            )
        if timing.regrow and pattern.kind is not PatternKind.UNSTRUCTURED:
            raise ConfigError(
                f"--regrow: exchanges single weights, got --pattern {pattern.in_words()}",
                "use --pattern unstructured, or drop --regrow",
            )
        if removal.weights.sparsity is not None and removal.weights.sparsity <= 0:
            raise ConfigError(
                "--weight-sparsity: something must go, got 0%", "e.g. --weight-sparsity 80%"
            )


def _one_shot_only(flag: str, why: str, schedule: PruneSchedule) -> None:
    if schedule is not PruneSchedule.ONE_SHOT:
        raise ConfigError(
            f"{flag}: {why}, got --schedule {schedule.value}", "use --schedule one-shot"
        )
