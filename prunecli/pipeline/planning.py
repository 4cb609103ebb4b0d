"""Second part of a run: couple, score, select. Pure but for progress.

Stage: pipeline. In: `Prepared`. Out: `Planned`.
"""

from dataclasses import dataclass

from torch import Tensor

from prunecli.choices import Quantity
from prunecli.config import RunConfig
from prunecli.graph.capture import Captured
from prunecli.graph.cost import CostModel, cost_model
from prunecli.graph.coupling import Coupling, couple
from prunecli.graph.walk import Flow, walk
from prunecli.importance.units import score_units
from prunecli.pipeline.ledger import Ledger
from prunecli.progress import Reporter
from prunecli.report import record
from prunecli.report.advice import advice, source_line
from prunecli.selection.budget import select
from prunecli.selection.plan import Plan

CLOSE_SHARE = 0.02
"""A result further below the target than this share of the original is pointed out."""


@dataclass(frozen=True)
class Planned:
    """The analysis, and what stays."""

    flow: Flow
    coupling: Coupling
    costs: CostModel
    plan: Plan


def plan(config: RunConfig, captured: Captured, ledger: Ledger, reporter: Reporter) -> Planned:
    """Analyse the network and choose what stays.

    Raises:
        NothingToPruneError: every part is frozen.
        TargetError: the target cannot be reached.
    """
    with ledger.stage("plan"), reporter.step("analysing and planning"):
        flow = walk(captured)
        coupling = couple(flow)
        ledger.note(frozen=frozen_rows(captured, coupling))
        costs = cost_model(captured.network, flow, coupling, captured.batch)
        seed = config.train.seed
        wanted, strategy = config.removal.units, config.removal.strategies[0]
        assert wanted.target is not None
        mix = config.removal.criterion(strategy)
        scores = score_units(captured, flow, coupling, strategy, mix, None, seed, reporter)
        chosen = select(
            coupling,
            costs,
            scores.normalised,
            wanted.target,
            mix.in_words(),
            seed,
            wanted.round_to,
        )
        _note_plan(config, coupling, chosen, ledger)
    return Planned(flow, coupling, costs, chosen)


def frozen_rows(captured: Captured, coupling: Coupling) -> tuple[record.FrozenRow, ...]:
    """What stays as it is, for the report; tables of indices were never to be pruned."""
    network = captured.network
    indices = {
        name
        for name, item in (*network.named_buffers(), *vars(network).items())
        if isinstance(item, Tensor) and not item.is_floating_point()
    }
    found = ((tuple(x for x in item.layers if x not in indices), item) for item in coupling.frozen)
    return tuple(
        record.FrozenRow(
            layers,
            item.why.reason,
            item.why.operator or None,
            item.why.place or None,
            source_line(item.why.trace),
            advice(item.why.reason),
        )
        for layers, item in found
        if layers
    )


def _note_plan(config: RunConfig, coupling: Coupling, chosen: Plan, ledger: Ledger) -> None:
    kept = sum(group.kept for group in chosen.groups)
    achieved = record.compute_achieved(
        (round(chosen.before.macs), round(chosen.after.macs)),
        (round(chosen.before.params), round(chosen.after.params)),
        (coupling.count, kept),
    )
    ledger.note(
        achieved=achieved,
        groups=tuple(
            record.GroupRow(
                group.name,
                group.kind,
                group.layers,
                group.kept,
                group.total,
                group.score_low,
                group.score_high,
            )
            for group in chosen.groups
        ),
    )
    target = config.removal.units.target
    assert target is not None
    share = {
        Quantity.MACS: (achieved.macs_after, achieved.macs_before),
        Quantity.PARAMS: (achieved.params_after, achieved.params_before),
        Quantity.CHANNELS: (achieved.channels_after, achieved.channels_before),
    }[target.quantity]
    got, original = share
    short = (target.limit(original) - got) / original
    if short > CLOSE_SHARE:
        ledger.warn(
            f"the result is {100 * short:.1f}% of the original below the target: the network's "
            "groups are coarse, no choice of whole units comes closer"
        )
