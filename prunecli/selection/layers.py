"""Which blocks are dropped: a plan that can be read, saved and replayed.

Stage: selection. Pure: blocks, scores and what is wanted in, a plan out. Touches no network.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum

import numpy as np

from prunecli.errors import ConfigError, NothingToPruneError, TargetError
from prunecli.graph.blocks import Block
from prunecli.importance.scores import Scores
from prunecli.removal import Choosing, LayerRule, LayersWanted, Threshold

LAYER_PLAN_VERSION = 1


class Why(StrEnum):
    """What decided about a block."""

    RANK = "rank"
    THRESHOLD = "threshold"
    OVERRIDE = "override"
    KEPT = "kept"
    INSIDE = "inside"


WHY_IN_WORDS = {
    Why.RANK: "its score among the others'",
    Why.THRESHOLD: "its score next to the threshold",
    Why.OVERRIDE: "the share that --layer asks of these layers",
    Why.KEPT: "--keep names it, or something inside of it",
    Why.INSIDE: "it is inside of a block that goes",
}


@dataclass(frozen=True)
class LayerRow:
    """What happens to one block.

    Attributes:
        name, layers, params: as in the block.
        score: how much the network needs it, in the criterion's scale.
        dropped: whether it goes.
        why: what decided that.
    """

    name: str
    layers: tuple[str, ...]
    params: int
    score: float
    dropped: bool
    why: Why


@dataclass(frozen=True)
class LayerPlan:
    """Which blocks go.

    Attributes:
        criterion, target, seed: how they were chosen.
        threshold: scores at or below it went, where a threshold decided.
        rows: per block of the network, in graph order.
    """

    criterion: str
    target: str
    seed: int
    threshold: float | None
    rows: tuple[LayerRow, ...]

    @property
    def dropped(self) -> tuple[str, ...]:
        """Names of the blocks that go."""
        return tuple(row.name for row in self.rows if row.dropped)

    def to_json(self) -> str:
        """The plan as text, the same for the same plan byte for byte."""
        record = {"version": LAYER_PLAN_VERSION, **asdict(self)}
        return json.dumps(record, indent=1, sort_keys=True) + "\n"


def layer_plan_from_json(text: str) -> LayerPlan:
    """Read a plan back.

    Raises:
        ConfigError: not a plan, or one of another version.
    """
    try:
        record = json.loads(text)
        version = record.pop("version")
        if version != LAYER_PLAN_VERSION:
            raise ConfigError(
                f"layer plan: version {LAYER_PLAN_VERSION} is needed, got {version}",
                "make it again with this version of prunecli",
            )
        rows = tuple(
            LayerRow(**{**row, "layers": tuple(row["layers"]), "why": Why(row["why"])})
            for row in record.pop("rows")
        )
        return LayerPlan(**record, rows=rows)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"layer plan: cannot be read: {error}", "give the file that a run has written"
        ) from error


def dropped_blocks(plan: LayerPlan, blocks: Sequence[Block]) -> tuple[str, ...]:
    """Names of the blocks that a plan drops, once it is clear that it was made for them.

    Raises:
        ConfigError: the plan was made for another network.
    """
    planned = [(row.name, row.layers, row.params) for row in plan.rows]
    if planned != [(block.name, block.layers, block.params) for block in blocks]:
        raise ConfigError(
            "layer plan: does not fit this network",
            "use the plan with the checkpoint it was made for",
        )
    return plan.dropped


def choose_layers(
    blocks: Sequence[Block],
    scores: Scores,
    wanted: LayersWanted,
    choosing: Choosing,
    criterion: str,
    seed: int,
    before: Sequence[LayerRow] = (),
) -> LayerPlan:
    """Drop the blocks with the lowest scores, as many as are wanted in all, or those at or below
    the threshold. What `--layer` asks of some of them comes first, and counts; where it asks for
    more than is wanted in all, more go. What `--keep` names stays. With a block goes what is
    inside of it.

    Args:
        wanted: how many of `blocks` go.
        before: what earlier rounds dropped, of which the shares of `--layer` are shares too.

    Raises:
        NothingToPruneError: there is no block, or none at or below the threshold.
        TargetError: more are wanted than can go.
    """
    if not blocks:
        raise NothingToPruneError(
            "network: no block is left that could be dropped", "ask for fewer with --layers-to-drop"
        )
    choice = _Choice(blocks, scores)
    choice.protect([place for place, block in enumerate(blocks) if _kept(block, choosing)])
    for rule, places in _ruled(blocks, choosing.rules).items():
        gone = len(_ruled(before, choosing.rules).get(rule, ()))
        number = round((len(places) + gone) * rule.share) - gone
        choice.take(places, number, Why.OVERRIDE)
        choice.protect([place for place in places if place not in choice.gone], Why.OVERRIDE)
    if choosing.threshold is not None:
        limit = _limit(choosing.threshold, scores)
        low = [place for place in range(len(blocks)) if scores[place] <= limit]
        choice.take(low, len(blocks), Why.THRESHOLD)
        _check_any(choice, choosing.threshold, scores)
        target = f"drop layers that score at or below {choosing.threshold.in_words()}"
        return LayerPlan(criterion, target, seed, limit, choice.rows(blocks, Why.THRESHOLD))
    number = wanted.number(len(blocks))
    _check_number(choice, number)
    choice.take(range(len(blocks)), number - choice.count, Why.RANK)
    target = f"drop {wanted.in_words()} of {len(blocks)} layers"
    return LayerPlan(criterion, target, seed, None, choice.rows(blocks, Why.RANK))


def idle_rules(blocks: Sequence[Block], choosing: Choosing) -> tuple[LayerRule, ...]:
    """Rules that speak of no block."""
    return tuple(rule for rule in choosing.rules if not any(_fits(rule, block) for block in blocks))


class _Choice:
    """What goes so far. Places are those of the blocks."""

    def __init__(self, blocks: Sequence[Block], scores: Scores) -> None:
        everywhere = range(len(blocks))
        self.scores = scores
        self.within = [
            {other for other in everywhere if blocks[other].exit in blocks[place].inside}
            for place in everywhere
        ]
        self.gone: set[int] = set()
        self.stays: set[int] = set()
        self.why: dict[int, Why] = {}

    @property
    def count(self) -> int:
        """How many go so far."""
        return len(self.gone)

    @property
    def most(self) -> int:
        """How many could go."""
        return len(self.within) - len(self.stays)

    def protect(self, places: Iterable[int], why: Why = Why.KEPT) -> None:
        """These stay, and with them what is around them."""
        for place in set(places):
            around = [other for other, own in enumerate(self.within) if place in own]
            for other in (place, *around):
                if other not in self.stays:
                    self.stays.add(other)
                    self.why[other] = why

    def take(self, places: Iterable[int], number: int, why: Why) -> None:
        """At most `number` more go, the lowest scores first."""
        order = sorted(places, key=lambda place: (self.scores[place], place))
        most = self.count + number
        before = -1
        # What was too large as a whole may fit once parts of it are gone.
        while self.count != before:
            before = self.count
            for place in order:
                more = self.within[place] - self.gone
                if place in self.gone or place in self.stays or self.count + len(more) > most:
                    continue
                self.gone |= more
                self.why.update(dict.fromkeys(more, Why.INSIDE))
                self.why[place] = why

    def rows(self, blocks: Sequence[Block], otherwise: Why) -> tuple[LayerRow, ...]:
        """What became of each block; `otherwise`: why those stay about which nothing was said."""
        return tuple(
            LayerRow(
                block.name,
                block.layers,
                block.params,
                float(self.scores[place]),
                place in self.gone,
                self.why.get(place, otherwise),
            )
            for place, block in enumerate(blocks)
        )


def _names(item: Block | LayerRow) -> tuple[str, ...]:
    """What patterns are compared with."""
    return (item.name, *item.layers)


def _kept(block: Block, choosing: Choosing) -> bool:
    return any(choosing.kept(name) for name in _names(block))


def _fits(rule: LayerRule, item: Block | LayerRow) -> bool:
    return any(rule.fits(name) for name in _names(item))


def _ruled(
    items: Sequence[Block | LayerRow], rules: Sequence[LayerRule]
) -> dict[LayerRule, list[int]]:
    """Per rule, the blocks of which it is the last that fits."""
    found: dict[LayerRule, list[int]] = {}
    for place, item in enumerate(items):
        fitting = [rule for rule in rules if _fits(rule, item)]
        if fitting:
            found.setdefault(fitting[-1], []).append(place)
    return found


def _limit(threshold: Threshold, scores: Scores) -> float:
    if not threshold.dynamic:
        return threshold.value
    return float(np.mean(scores) - threshold.value * np.std(scores))


def _check_any(choice: _Choice, threshold: Threshold, scores: Scores) -> None:
    if choice.count:
        return
    flag = f"--threshold {threshold.in_words()}"
    if threshold.dynamic:
        raise NothingToPruneError(
            f"{flag}: no layer that may go scores so far below the mean",
            "give fewer standard deviations",
        )
    raise NothingToPruneError(
        f"{flag}: no layer that may go scores at or below it, scores range from "
        f"{scores.min():.4g} to {scores.max():.4g}",
        f"--threshold {np.median(scores):.3g} is at or above about half of the scores",
    )


def _check_number(choice: _Choice, number: int) -> None:
    if number > choice.most:
        held = len(choice.stays)
        raise TargetError(
            f"--layers-to-drop: at most {choice.most} of {len(choice.within)} layers can go"
            + (f" (--keep and --layer hold {held})" if held else "")
            + f", got {number}",
            f"--layers-to-drop {choice.most}",
        )
