"""The flags about what goes, read into a `Removal`.

Stage: wishes. In: the texts of flags. Out: a `Removal`. A flag that would have no effect in the
run is refused, so that nothing asked for is silently ignored.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, TypeVar

from prunecli.choices import (
    CRITERIA,
    DEFAULT_CRITERION,
    UNIT_STRATEGIES,
    Criterion,
    Curve,
    Penalty,
    PruneSchedule,
    Quantity,
    Scope,
    Strategy,
)
from prunecli.errors import ConfigError
from prunecli.parsing import (
    parse_layers,
    parse_margin,
    parse_number,
    parse_pattern,
    parse_ratio,
    parse_rule,
    parse_share,
    parse_target,
    parse_threshold,
)
from prunecli.removal import (
    Choosing,
    LayersWanted,
    Mixture,
    PatternKind,
    Removal,
    Target,
    UnitsWanted,
    WeightsWanted,
)
from prunecli.timing import Timing

DEFAULT_MACS, DEFAULT_LAYERS, DEFAULT_SPARSITY = "50%", "25%", "80%"
"""What is asked for where nothing is said."""

Choice = TypeVar("Choice", bound=StrEnum)


@dataclass(frozen=True)
class RemovalFlags:
    """Flags as they were given; `None` or empty where they were not."""

    strategy: str | None = None
    criterion: tuple[str, ...] = ()
    calibration_samples: int | None = None
    target_macs: str | None = None
    target_params: str | None = None
    channel_ratio: str | None = None
    round_to: int | None = None
    layers_to_drop: str | None = None
    weight_sparsity: str | None = None
    pattern: str | None = None
    mask_biases: bool | None = None
    threshold: str | None = None
    scope: str | None = None
    layer: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    schedule: str | None = None
    rounds: int | None = None
    curve: str | None = None
    power: float | None = None
    initial: str | None = None
    begin: str | None = None
    end: str | None = None
    every: int | None = None
    regrow: str | None = None
    dense_epochs: float | None = None
    sparse_epochs: float | None = None
    penalty: str | None = None
    penalty_strength: float | None = None
    max_drop: str | None = None

    def given(self) -> list[str]:
        """Names of the fields that were given."""
        return [
            item.name for item in fields(self) if getattr(self, item.name) not in (None, (), [])
        ]


def read_removal(flags: RemovalFlags) -> Removal:
    """Everything about what goes.

    Raises:
        ConfigError: a flag that is not understood, or that fits none of the strategies.
    """
    strategies = _strategies(flags.strategy)
    schedule = _choice("--schedule", flags.schedule or PruneSchedule.ONE_SHOT.value, PruneSchedule)
    _refuse_idle(flags, strategies, schedule)
    choosing = _choosing(flags)
    return Removal(
        strategies,
        _criteria(flags.criterion, strategies),
        choosing,
        _units(flags, strategies, choosing),
        _layers(flags, strategies, choosing),
        _weights(flags, strategies, choosing),
        _timing(flags, schedule),
        **_given("calibration_samples", flags.calibration_samples),
    )


def _strategies(text: str | None) -> tuple[Strategy, ...]:
    names = [part.strip() for part in (text or Strategy.STRUCTURED.value).split(",")]
    return tuple(_choice("--strategy", name, Strategy) for name in names)


def _choice(flag: str, text: str, kind: type[Choice]) -> Choice:
    try:
        return kind(text)
    except ValueError:
        known = [item.value for item in kind]
        raise ConfigError(
            f"{flag}: must be one of {', '.join(known)}, got {text!r}", f"e.g. {flag} {known[0]}"
        ) from None


_FOR: dict[str, tuple[tuple[Strategy, ...], str]] = {
    **dict.fromkeys(
        ("target_macs", "target_params", "channel_ratio"),
        (UNIT_STRATEGIES, "structured"),
    ),
    "round_to": ((*UNIT_STRATEGIES, Strategy.WEIGHT), "structured"),
    "layers_to_drop": ((Strategy.LAYER,), "layer"),
    **dict.fromkeys(
        ("weight_sparsity", "pattern", "mask_biases", "regrow", "dense_epochs"),
        ((Strategy.WEIGHT,), "weight"),
    ),
}
"""Flags that only matter to some strategies, and the one to suggest."""

_GRADUAL = ("curve", "power", "initial", "begin", "end", "every", "regrow")


def _refuse_idle(
    flags: RemovalFlags, strategies: tuple[Strategy, ...], schedule: PruneSchedule
) -> None:
    for name in flags.given():
        flag = "--" + name.replace("_", "-")
        needed, example = _FOR.get(name, (strategies, ""))
        if not set(needed) & set(strategies):
            asked = ",".join(item.value for item in strategies)
            raise ConfigError(
                f"{flag}: has no effect with --strategy {asked}",
                f"use it with --strategy {example}, or drop it",
            )
        if name in _GRADUAL and schedule is not PruneSchedule.GRADUAL:
            raise ConfigError(
                f"{flag}: has no effect with --schedule {schedule.value}",
                "use it with --schedule gradual, or drop it",
            )
        if name in ("penalty", "penalty_strength") and not flags.sparse_epochs:
            raise ConfigError(
                f"{flag}: has no effect without sparse training",
                f"say how long it lasts: --sparse-epochs 1 {flag} ..., or drop it",
            )
    if flags.rounds is not None and schedule is not PruneSchedule.ITERATIVE:
        raise ConfigError(
            f"--rounds: has no effect with --schedule {schedule.value}",
            "use it with --schedule iterative, or drop it",
        )


def _criteria(
    texts: tuple[str, ...], strategies: tuple[Strategy, ...]
) -> tuple[tuple[Strategy, Mixture], ...]:
    """`l2`, `l2:0.5,taylor:0.5`, or one for each strategy: `structured=l2` and `weight=wanda`."""
    found: dict[Strategy, Mixture] = {}
    for text in texts:
        name, equals, rest = text.partition("=")
        own = (_choice("--criterion", name.strip(), Strategy),) if equals else strategies
        for strategy in own:
            if strategy not in strategies:
                raise ConfigError(
                    f"--criterion: {strategy.value} is not among the strategies of this run",
                    f"add it: --strategy {','.join((*strategies, strategy))}",
                )
            if strategy in found:
                raise ConfigError(
                    f"--criterion: --strategy {strategy.value} has one already, got {text!r} too",
                    "mix several in one: --criterion l2:0.5,taylor:0.5",
                )
            found[strategy] = _mixture(rest if equals else text, strategy)
    return tuple(found.items())


def _mixture(text: str, strategy: Strategy) -> Mixture:
    parts: dict[Criterion, float] = {}
    for part in text.split(","):
        name, colon, weight = part.strip().partition(":")
        try:
            criterion = Criterion(name.strip())
        except ValueError:
            known = ", ".join(item.value for item in CRITERIA[strategy])
            raise ConfigError(
                f"--criterion: must be one of {known}, got {name!r}",
                f"e.g. --criterion {DEFAULT_CRITERION[strategy].value}",
            ) from None
        share = parse_number("--criterion", weight) if colon else 1.0
        if share <= 0 or criterion in parts:
            raise ConfigError(
                "--criterion: every part of a mixture has a positive weight and comes once, got "
                f"{text!r}",
                "e.g. --criterion l2:0.5,taylor:0.5",
            )
        parts[criterion] = share
    return Mixture(tuple(parts.items()))


def _choosing(flags: RemovalFlags) -> Choosing:
    return Choosing(
        None if flags.threshold is None else parse_threshold(flags.threshold),
        _choice("--scope", flags.scope or Scope.GLOBAL.value, Scope),
        tuple(map(parse_rule, _parts(flags.layer))),
        tuple(_parts(flags.keep)),
    )


def _parts(texts: Iterable[str]) -> list[str]:
    return [part.strip() for text in texts for part in text.split(",") if part.strip()]


def _units(
    flags: RemovalFlags, strategies: tuple[Strategy, ...], choosing: Choosing
) -> UnitsWanted:
    by_units = bool(set(UNIT_STRATEGIES) & set(strategies))
    target = _target(flags, choosing) if by_units else None
    if flags.round_to is not None:
        return UnitsWanted(target, flags.round_to)
    return UnitsWanted(target)


def _target(flags: RemovalFlags, choosing: Choosing) -> Target | None:
    given = {
        "--target-macs": flags.target_macs,
        "--target-params": flags.target_params,
        "--channel-ratio": flags.channel_ratio,
        "--threshold": flags.threshold,
    }
    used = [name for name, value in given.items() if value is not None]
    if len(used) > 1:
        raise ConfigError(f"target: one is needed, got {' and '.join(used)}", "keep one of them")
    if flags.channel_ratio is not None:
        return parse_ratio(flags.channel_ratio)
    if flags.target_params is not None:
        return parse_target(Quantity.PARAMS, flags.target_params)
    if choosing.threshold is not None:
        return None
    return parse_target(Quantity.MACS, flags.target_macs or DEFAULT_MACS)


def _layers(
    flags: RemovalFlags, strategies: tuple[Strategy, ...], choosing: Choosing
) -> LayersWanted:
    text = flags.layers_to_drop
    if text is not None and choosing.threshold is not None:
        raise ConfigError(
            "--layers-to-drop and --threshold exclude each other",
            "say what counts with one of them",
        )
    if Strategy.LAYER not in strategies or choosing.threshold is not None:
        return LayersWanted()
    return parse_layers(text or DEFAULT_LAYERS)


def _weights(
    flags: RemovalFlags, strategies: tuple[Strategy, ...], choosing: Choosing
) -> WeightsWanted:
    if Strategy.WEIGHT not in strategies:
        return WeightsWanted()
    pattern = parse_pattern(flags.pattern or PatternKind.UNSTRUCTURED.value)
    text = flags.weight_sparsity
    if text is not None and choosing.threshold is not None:
        raise ConfigError(
            "--weight-sparsity and --threshold exclude each other",
            "say what counts with one of them",
        )
    if text is not None and pattern.kind is PatternKind.N_OF_M:
        raise ConfigError(
            f"--weight-sparsity: --pattern {pattern.in_words()} decides how many weights go",
            "drop --weight-sparsity, or choose another pattern",
        )
    free = choosing.threshold is None and pattern.kind is not PatternKind.N_OF_M
    sparsity = parse_share("--weight-sparsity", text or DEFAULT_SPARSITY) if free else None
    return WeightsWanted(sparsity, pattern, bool(flags.mask_biases))


def _timing(flags: RemovalFlags, schedule: PruneSchedule) -> Timing:
    shares = {
        name: parse_share(f"--{name}", getattr(flags, name), top=True)
        for name in ("initial", "begin", "end", "regrow")
        if getattr(flags, name) is not None
    }
    rounds = flags.rounds if flags.rounds is not None else 3
    return Timing(
        schedule=schedule,
        rounds=rounds if schedule is PruneSchedule.ITERATIVE else 1,
        largest_drop=None if flags.max_drop is None else parse_margin("--max-drop", flags.max_drop),
        **_given("curve", flags.curve, lambda text: _choice("--curve", text, Curve)),
        **_given("penalty", flags.penalty, lambda text: _choice("--penalty", text, Penalty)),
        **_given("power", flags.power),
        **_given("every", flags.every),
        **_given("dense_epochs", flags.dense_epochs),
        **_given("sparse_epochs", flags.sparse_epochs),
        **_given("penalty_strength", flags.penalty_strength),
        **shares,  # type: ignore[arg-type]
    )


def _given(name: str, value: object, read: Callable[[str], object] | None = None) -> dict[str, Any]:
    """A keyword argument, where the flag was given."""
    if value is None:
        return {}
    return {name: value if read is None else read(str(value))}
