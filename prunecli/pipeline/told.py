"""Plans as rows of the report.

Stage: pipeline. In: a plan. Out: a `StepRow`. Decides nothing.
"""

from collections.abc import Callable, Mapping

from prunecli.choices import Strategy
from prunecli.removal import Removal
from prunecli.report.removed import Fate, GroupRow, LayerRow, StepRow, WeightRow
from prunecli.selection.fates import IN_WORDS
from prunecli.selection.layers import WHY_IN_WORDS, LayerPlan
from prunecli.selection.maskplan import MaskPlan
from prunecli.selection.plan import Plan, PlanGroup


def units_step(removal: Removal, plan: Plan, number: int) -> StepRow:
    """A plan of whole units."""
    strategy = removal.by_units
    assert strategy is not None
    return StepRow(
        number, strategy, plan.criterion, plan.target, groups=tuple(map(group_row, plan.groups))
    )


def group_row(group: PlanGroup) -> GroupRow:
    """One group, with what became of its units."""
    return GroupRow(
        group.name,
        group.kind,
        group.layers,
        group.kept,
        group.total,
        group.score_low,
        group.score_high,
        group.threshold,
        tuple(
            Fate(
                not fate.stays,
                IN_WORDS[fate],
                places,
                min(group.scores[place] for place in places),
                max(group.scores[place] for place in places),
            )
            for fate, places in group.fates
        ),
    )


def layers_step(removal: Removal, plan: LayerPlan, number: int) -> StepRow:
    """A plan of residual blocks."""
    return StepRow(
        number,
        Strategy.LAYER,
        removal.criterion(Strategy.LAYER).in_words(),
        plan.target,
        layers=tuple(
            LayerRow(row.name, row.params, row.score, row.dropped, WHY_IN_WORDS[row.why])
            for row in plan.rows
        ),
    )


def weights_step(removal: Removal, plan: MaskPlan, number: int) -> StepRow:
    """Masks."""
    return StepRow(
        number,
        Strategy.WEIGHT,
        removal.criterion(Strategy.WEIGHT).in_words(),
        weights_in_words(removal),
        weights=tuple(
            WeightRow(row.name, row.kept, row.total, row.threshold, str(row.why))
            for row in plan.rows
        ),
    )


def weights_in_words(removal: Removal) -> str:
    """What was asked of single weights, as a sentence fragment."""
    wanted, threshold = removal.weights, removal.choosing.threshold
    pattern = f", pattern {wanted.pattern.in_words()}"
    if wanted.sparsity is not None:
        return f"remove {wanted.sparsity:.4%} of the weights{pattern}".replace(".0000%", "%")
    if threshold is not None:
        return f"remove weights at or below {threshold.in_words()}{pattern}"
    return f"remove weights{pattern}"


def layers_in_words(removal: Removal) -> str:
    """What was asked of whole layers, as a sentence fragment."""
    threshold = removal.choosing.threshold
    if threshold is not None:
        return f"drop layers that score at or below {threshold.in_words()}"
    return f"drop {removal.layers.in_words()} of the layers"


def units_in_words(removal: Removal) -> str:
    """What was asked of whole units, as a sentence fragment."""
    threshold, target = removal.choosing.threshold, removal.units.target
    if target is not None:
        return target.in_words()
    if threshold is not None:
        return f"remove units that score at or below {threshold.in_words()}"
    return "remove what --layer says"


IN_WORDS_OF: Mapping[Strategy, Callable[[Removal], str]] = {
    Strategy.STRUCTURED: units_in_words,
    Strategy.NEURON: units_in_words,
    Strategy.LAYER: layers_in_words,
    Strategy.WEIGHT: weights_in_words,
}


def in_words(removal: Removal, strategy: Strategy) -> str:
    """What was asked of a strategy, as a sentence fragment."""
    return IN_WORDS_OF[strategy](removal)
