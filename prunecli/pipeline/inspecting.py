"""What could be pruned: load, capture, analyse, and stop there.

Stage: pipeline. In: where the network comes from. Out: an `Inspection`. Reads no data, removes
nothing, writes nothing.
"""

import math
import shlex

import numpy as np

from prunecli.choices import DEFAULT_CRITERION, Quantity, Strategy
from prunecli.config import ModelConfig, RunConfig
from prunecli.errors import NothingToPruneError
from prunecli.graph.capture import Captured
from prunecli.graph.cost import Cost, cost_model
from prunecli.graph.coupling import Coupling, couple, layer_of
from prunecli.graph.walk import Flow, walk
from prunecli.importance.scores import Scores
from prunecli.importance.units import score_units
from prunecli.pipeline.ledger import Ledger
from prunecli.pipeline.planning import frozen_rows
from prunecli.pipeline.prepare import prepare
from prunecli.progress import Reporter
from prunecli.removal import Removal, Target, UnitsWanted, mixture
from prunecli.report.advice import source_line
from prunecli.report.inspection import (
    InspectedGroup,
    Inspection,
    UnknownOperator,
    unknown_line,
)
from prunecli.report.record import Report
from prunecli.selection.budget import smallest
from prunecli.selection.reach import GroupReach, group_reach
from prunecli.selection.steps import Steps, finest_steps

USUAL_SHARE = 0.5
"""The suggested command asks for this, or for the least that can be reached."""


def inspect(config: ModelConfig, reporter: Reporter) -> Inspection:
    """Find out what could be pruned, as `prune` with its usual criterion would.

    Raises:
        NothingToPruneError: every part is frozen.
        PrunecliError: bad input, see the stages.
    """
    ledger = Ledger(Report(command=""), None)
    # Preparing is the same as for a run; the target is one that nothing here looks at.
    run = RunConfig(
        config, Removal(units=UnitsWanted(Target(Quantity.MACS, USUAL_SHARE, None, "50%")))
    )
    captured = prepare(run, ledger, reporter).captured
    assert ledger.report.checkpoint is not None
    with reporter.step("analysing"):
        flow = walk(captured)
        coupling = couple(flow)
        usual = mixture(DEFAULT_CRITERION[Strategy.STRUCTURED])
        scores = score_units(
            captured, flow, coupling, Strategy.STRUCTURED, usual, None, 0, reporter
        ).normalised
        steps = _steps(flow, coupling, scores)
        costs = cost_model(captured.network, flow, coupling, captured.batch)
        before = costs.evaluate(np.ones(coupling.count, dtype=np.bool_))
        least = smallest(coupling, costs, scores)
        groups = tuple(
            _group(coupling, found, before) for found in group_reach(coupling, costs, steps)
        )
    return Inspection(
        ledger.report.checkpoint,
        round(before.macs),
        round(before.params),
        round(least.macs),
        round(least.params),
        groups,
        frozen_rows(captured, coupling),
        _unknown(flow),
        _next_command(config, captured, before, least),
        ledger.report.notes,
    )


def _steps(flow: Flow, coupling: Coupling, scores: Scores) -> Steps:
    try:
        return finest_steps(coupling, scores)
    except NothingToPruneError as error:
        hint = "; ".join(map(unknown_line, _unknown(flow)))
        raise NothingToPruneError(
            error.message,
            hint
            or "only widths between two layers can be cut, never the network's inputs or outputs",
        ) from error


def _group(coupling: Coupling, found: GroupReach, before: Cost) -> InspectedGroup:
    group = found.group
    layers = dict.fromkeys(layer_of(coupling.slots[place].tensor) for place in group.slots)
    return InspectedGroup(
        group.name,
        group.kind,
        tuple(layers),
        int(group.units.size),
        found.may_go,
        _share_gone(before.macs, found.after.macs),
        _share_gone(before.params, found.after.params),
    )


def _share_gone(before: float, after: float) -> float:
    # A network without convolutions or matrix products has no MACs to lose.
    return (before - after) / before if before else 0.0


def _unknown(flow: Flow) -> tuple[UnknownOperator, ...]:
    return tuple(
        UnknownOperator(
            operator,
            tuple(dict.fromkeys(place for place, _ in calls)),
            tuple(dict.fromkeys(filter(None, (source_line(trace) for _, trace in calls)))),
        )
        for operator, calls in flow.notes.unknown.items()
    )


def _next_command(config: ModelConfig, captured: Captured, before: Cost, least: Cost) -> str:
    """`prunecli prune` with the same network and a target that can be reached."""
    words = ["prunecli", "prune", str(config.checkpoint)]
    if config.factory is not None:
        words += ["--model", config.factory]
    for key, value in config.args.items():
        words += ["--model-arg", f"{key}={value}"]
    if config.input_shape is not None:
        words += ["--input-shape", ",".join(map(str, config.input_shape))]
    for spec in config.inputs:
        words += ["--input", spec.in_words()]
    if config.allow_pickle:
        words.append("--allow-pickle")
    simple = len(captured.inputs) == 1 and captured.inputs[0].is_floating_point()
    data = ("--data", "PATH") if simple else ()
    return shlex.join([*words, *data, *_target(before, least)])


def _target(before: Cost, least: Cost) -> tuple[str, ...]:
    shares = {
        "--target-macs": 1.0 - _share_gone(before.macs, least.macs),
        "--target-params": 1.0 - _share_gone(before.params, least.params),
    }
    for flag, share in shares.items():
        # Rounded up to a tenth of a percent, so that it can be reached.
        percent = max(100 * USUAL_SHARE, math.ceil(1000 * share) / 10)
        if percent < 100:
            return flag, f"{percent:g}%"
    return ()
