"""The choice: which units go so that a target is met, or what scores at or below a threshold.

Stage: selection. Pure: coupling, scores and what is wanted in, a plan out. Touches no weights.
"""

import numpy as np

from prunecli.errors import ConfigError, NothingToPruneError
from prunecli.graph.cost import Cost, CostModel, Keep
from prunecli.graph.coupling import Coupling, Group
from prunecli.importance.scores import Scores, UnitScores
from prunecli.removal import Choosing, UnitsWanted
from prunecli.selection.fates import Places, fates, of_group
from prunecli.selection.overrides import NO_CUT, layers_of, settle
from prunecli.selection.plan import Plan, PlanGroup, kept_indices
from prunecli.selection.scope import classes
from prunecli.selection.steps import Steps, finest_steps, linked, make_steps
from prunecli.selection.targets import Cut, Field, meet
from prunecli.selection.thresholds import cut_at
from prunecli.selection.wording import compared_in_words, in_words


def select(
    coupling: Coupling,
    model: CostModel,
    scores: UnitScores,
    wanted: UnitsWanted,
    choosing: Choosing,
    criterion: str,
    seed: int,
    gone: Keep | None = None,
) -> Plan:
    """Choose what goes, and note why.

    What the criterion says nothing about (infinite scores) stays.
    First what is said about single layers is carried out. Then either steps are taken by
    normalised scores until the target is met, within the scope; or, with a threshold, every step
    whose raw score is at or below it; or, with rules alone, nothing else.

    Args:
        gone: units that went before, shape (units,): they are gone in the result too.

    Raises:
        ConfigError: neither a target nor a threshold nor a rule, both of the first two, or a rule
            that matches nothing.
        NothingToPruneError: no unit may go, or none is that low.
        TargetError: more must stay than is asked for.
    """
    _check_wanted(wanted, choosing)
    compared = scores.normalised if choosing.threshold is None else scores.raw
    silent = np.isinf(compared)
    # It stays whatever it scores; a finite number for it keeps means and reports finite.
    compared = np.where(silent, compared[~silent].max(initial=0.0), compared)
    fine = finest_steps(coupling, compared, gone)
    # Where a threshold decides, widths are what they become.
    block = wanted.round_to if choosing.threshold is None else 1
    rounded = make_steps(coupling, compared, round_to=block, gone=gone)
    parts = linked(coupling)
    settled = settle(coupling, parts, fine, rounded, choosing, gone, silent)
    class_of = classes(coupling, parts, choosing.scope)
    field = Field(coupling, model, settled, choosing.scope, class_of)
    if choosing.threshold is not None:
        cut = cut_at(field, compared, choosing.threshold, fine)
    elif wanted.target is not None:
        cut = meet(field, compared, wanted.target, fine, rounded)
    else:
        cut = _rules_only(field, compared, fine)
    why = fates(cut, fine, settled, threshold=choosing.threshold is not None)
    limits = np.maximum(cut.limits, settled.limits)
    return Plan(
        criterion,
        in_words(wanted, choosing),
        compared_in_words(choosing),
        seed,
        model.evaluate(np.ones(coupling.count, dtype=np.bool_)),
        model.evaluate(cut.keep),
        tuple(_group(coupling, group, cut, limits, why) for group in coupling.groups),
        kept_indices(coupling, cut.keep),
    )


def smallest(coupling: Coupling, model: CostModel, scores: Scores) -> Cost:
    """Cost when every step that may be taken is taken."""
    steps = make_steps(coupling, scores)
    return model.evaluate(steps.never[steps.of_unit])


def _check_wanted(wanted: UnitsWanted, choosing: Choosing) -> None:
    if wanted.target is None and choosing.threshold is None and not choosing.rules:
        raise ConfigError(
            "--target-macs: how much is to go is not said",
            "give one of --target-macs, --target-params, --channel-ratio, --threshold, --layer",
        )
    if wanted.target is not None and choosing.threshold is not None:
        raise ConfigError(
            f"--threshold: goes instead of a target, got {choosing.threshold.in_words()} and "
            f"{wanted.target.in_words()}",
            "give one of them",
        )


def _rules_only(field: Field, scores: Scores, fine: Steps) -> Cut:
    keep: Keep = ~field.settled.out
    if keep.all():
        raise NothingToPruneError(
            "--layer: less than one unit would go", "give a larger share, e.g. --layer 'conv1=50%'"
        )
    return Cut(keep, fine, field.settled.limits, scores)


def _group(coupling: Coupling, group: Group, cut: Cut, limits: Scores, why: Places) -> PlanGroup:
    limit = float(limits[group.units].max())
    return PlanGroup(
        group.name,
        group.kind,
        layers_of(coupling, group),
        int(cut.keep[group.units].sum()),
        int(group.units.size),
        None if limit == NO_CUT else _significant(limit),
        tuple(_significant(float(score)) for score in cut.scores[group.units]),
        of_group(why, group),
    )


def _significant(value: float) -> float:
    """Six digits."""
    return float(f"{value:.6g}")
