"""What can go, and what went: the parts of the report that are about the network itself.

Stage: pipeline. In: an analysis, or the states of a run. Out: rows in the ledger.
"""

from torch import Tensor

from prunecli.choices import UNIT_STRATEGIES, Quantity
from prunecli.config import RunConfig
from prunecli.graph.capture import Captured
from prunecli.graph.coupling import Coupling, layer_of
from prunecli.pipeline.job import Job
from prunecli.pipeline.ledger import Ledger
from prunecli.pipeline.state import Analysis, State
from prunecli.report import record
from prunecli.report.advice import advice, source_line
from prunecli.report.removed import FrozenRow, GroupRow
from prunecli.selection.matching import check_names, check_patterns

CLOSE_SHARE = 0.02
"""A result further below the target than this share of the original is pointed out."""


def check_flags(config: RunConfig, captured: Captured, found: Analysis, ledger: Ledger) -> None:
    """Note what is frozen, and refuse patterns that name no layer.

    Raises:
        ConfigError: such a pattern.
    """
    removal = config.removal
    if set(removal.strategies) & set(UNIT_STRATEGIES):
        ledger.note(frozen=frozen_rows(captured, found.coupling))
    layers = dict.fromkeys(layer_of(name) for name, _ in captured.network.named_parameters())
    check_patterns(removal.choosing, tuple(layers))
    check_names("--train-scope", config.train.patterns, tuple(layers))


def frozen_rows(captured: Captured, coupling: Coupling) -> tuple[FrozenRow, ...]:
    """What stays as it is, for the report; tables of indices were never to be pruned."""
    network = captured.network
    indices = {
        name
        for name, item in (*network.named_buffers(), *vars(network).items())
        if isinstance(item, Tensor) and not item.is_floating_point()
    }
    found = ((tuple(x for x in item.layers if x not in indices), item) for item in coupling.frozen)
    return tuple(
        FrozenRow(
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


def note_outcome(job: Job, state: State) -> None:
    """What the run comes to, in numbers and group by group."""
    before, after = job.original, state.cost
    achieved = record.compute_achieved(
        (round(before.macs), round(after.macs)),
        (round(before.params), round(after.params)),
        state.units,
        state.layers,
        state.weights,
    )
    job.ledger.note(achieved=achieved, groups=_overall(job.ledger))


def warn_if_far(job: Job, state: State) -> None:
    """Point out a result that is much smaller than was asked for."""
    before, after = job.original, state.cost
    target = job.config.removal.units.target
    if target is None or not job.ledger.report.groups:
        return
    original, got = {
        Quantity.MACS: (before.macs, after.macs),
        Quantity.PARAMS: (before.params, after.params),
        Quantity.CHANNELS: state.units or (1, 0),
    }[target.quantity]
    short = (target.limit(original) - got) / original
    if short > CLOSE_SHARE and not job.ledger.report.missed:
        job.ledger.warn(
            f"the result is {100 * short:.1f}% of the original below the target: the network's "
            "groups are coarse, no choice of whole units comes closer"
        )


def _overall(ledger: Ledger) -> tuple[GroupRow, ...]:
    """Groups over all rounds: what the first found, and what the last left."""
    found: dict[str, GroupRow] = {}
    for step in ledger.report.steps:
        if step.taken_back is None:
            for row in step.groups:
                first = found.get(row.id, row)
                found[row.id] = GroupRow(
                    *(row.id, row.kind, first.layers, row.kept, first.total),
                    *(row.score_low, row.score_high, row.threshold, row.fates),
                )
    return tuple(found.values())
