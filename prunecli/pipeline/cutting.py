"""Removing whole units: score, plan, compact, check, reconstruct.

Stage: pipeline. In: a state. Out: the next one. See `dropping` and `masking` for layers and
single weights.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

from torch import Tensor, fx

from prunecli import crew
from prunecli.choices import Quantity, Recovery
from prunecli.graph.cost import Keep
from prunecli.importance.units import score_units
from prunecli.pipeline.job import Job, Pace
from prunecli.pipeline.packing import pack_units, unpack_units
from prunecli.pipeline.state import Analysis, State, analysed
from prunecli.pipeline.told import units_step
from prunecli.recovery import reconstruct, reestimate
from prunecli.removal import Choosing, LayerRule, Target, UnitsWanted
from prunecli.selection.budget import select
from prunecli.selection.overrides import idle_rules
from prunecli.selection.plan import Plan, kept_units
from prunecli.surgery.compact import compact
from prunecli.surgery.kept import Kept, make_kept
from prunecli.surgery.masks import apply_masks, slice_masks
from prunecli.surgery.oracle import TOLERANCE, check

RECONSTRUCTION_EXAMPLES = 1024
"""Unlabelled training examples for reconstruction; fewer where memory allows no more."""


def cut_units(job: Job, state: State, pace: Pace) -> State:
    """Remove what is to be gone at `pace`.

    Raises:
        NothingToPruneError, TargetError: see `select`.
        VerificationError: the compact network is not what the plan says.
    """
    with job.ledger.stage("plan"), job.reporter.step("analysing and planning"):
        state, found = analysed(state)
        wanted = wanted_units(job, state, found, pace.share)
        if wanted is None:
            return state
        choosing = with_rules(job, found, lambda rule: pace.of_rest(rule.share))
        chosen = job.journal.once(
            "plan",
            lambda: choose_units(job, state, found, wanted, choosing),
            pack_units,
            unpack_units,
        )
        job.ledger.step(units_step(job.config.removal, chosen, pace.number))
    return apply_plan(job, state, found, chosen)


def with_rules(job: Job, found: Analysis, share: Callable[[LayerRule], float]) -> Choosing:
    """What the user says about choosing, with the share of each rule that goes now. Of several
    strategies, some rules concern others only."""
    choosing = job.config.removal.choosing
    idle = idle_rules(found.coupling, choosing) if len(job.config.removal.strategies) > 1 else ()
    rules = (rule for rule in choosing.rules if rule not in idle)
    return replace(choosing, rules=tuple(replace(rule, share=share(rule)) for rule in rules))


def choose_units(
    job: Job,
    state: State,
    found: Analysis,
    wanted: UnitsWanted,
    choosing: Choosing,
    gone: Keep | None = None,
) -> Plan:
    """Score and select.

    Args:
        gone: units that are gone already, shape (units,), though they are still there.
    """
    strategy = job.config.removal.by_units
    assert strategy is not None
    mix = job.config.removal.criterion(strategy)
    scores = score_units(
        state.captured,
        found.flow,
        found.coupling,
        strategy,
        mix,
        job.calibration(state.captured) if mix.needs_data(strategy) else None,
        job.seed,
        job.reporter,
    )
    chosen = select(
        found.coupling, found.costs, scores, wanted, choosing, mix.in_words(), job.seed, gone
    )
    return crew.shared(chosen)


def wanted_units(job: Job, state: State, found: Analysis, share: float) -> UnitsWanted | None:
    """What is asked for once `share` of everything is to be gone, in terms of the network as it
    is; `None` where earlier steps have reached that already.
    """
    wanted = job.config.removal.units
    target = wanted.target
    if target is None or (share == 1.0 and not state.plans):
        return wanted
    before = {
        Quantity.MACS: job.original.macs,
        Quantity.PARAMS: job.original.params,
        Quantity.CHANNELS: float((state.units or (found.coupling.count, 0))[0]),
    }[target.quantity]
    limit = before - share * (before - target.limit(before))
    now = {
        Quantity.MACS: state.cost.macs,
        Quantity.PARAMS: state.cost.params,
        Quantity.CHANNELS: float(found.coupling.count),
    }[target.quantity]
    if now <= limit:
        job.ledger.remark(f"{target.in_words()}: reached without removing more units")
        return None
    return replace(wanted, target=Target(target.quantity, None, limit, f"{limit:.0f}"))


def apply_plan(job: Job, state: State, found: Analysis, chosen: Plan) -> State:
    """Compact, compare with the network as it was, reconstruct.

    Raises:
        VerificationError: the compact network is not what the plan says.
    """
    captured, ledger = state.captured, job.ledger
    with ledger.stage("compact"), job.reporter.step("removing and checking against the original"):
        keep = kept_units(chosen, found.coupling)
        kept = make_kept(found.flow, found.coupling, keep)
        network = compact(captured, kept)
        result = check(captured, network, kept)
        worst = max(result.difference, result.worst, ledger.report.checks.oracle_difference or 0.0)
        checks = replace(ledger.report.checks, oracle_difference=worst, oracle_tolerance=TOLERANCE)
        ledger.note(checks=checks)
        masks = slice_masks(state.masks, kept)
    reconstruct_layers(job, state, network, kept, masks)
    before = state.units[0] if state.units is not None else found.coupling.count
    return replace(
        state,
        captured=replace(captured, network=network),
        cost=chosen.after,
        masks=masks,
        plans=(*state.plans, chosen),
        stale=True,
        analysis=None,
        units=(before, int(keep.sum())),
    )


def reconstruct_layers(
    job: Job,
    state: State,
    network: fx.GraphModule,
    kept: Kept,
    masks: Mapping[str, Tensor],
) -> None:
    """Hold the masks, and recover without training, where that was not switched off and there are
    examples.

    Args:
        state: what the network was before something was removed.
        network: without it; changed in place.
        masks: what is held at zero in `network`.
    """
    apply_masks(network, masks)
    examples = job.unlabelled(state.captured, RECONSTRUCTION_EXAMPLES)
    if examples is None or job.config.recover is Recovery.NONE:
        return

    def recover() -> str:
        if job.config.recover is Recovery.BN:
            norms = reestimate(network, examples, job.reporter)
            return f"measured the statistics of {norms} batch norms anew"
        done = reconstruct(state.captured, network, kept, examples, job.reporter, job.seed, masks)
        return f"reconstructed {done.layers} layers"

    stage = "measure norms" if job.config.recover is Recovery.BN else "reconstruct"
    with job.ledger.stage(stage):
        what = job.journal.change("recovery", network, recover)
    job.ledger.remark(
        f"{what} from {len(examples[0])} unlabelled training examples before any training"
    )
    # Biases take up what the weights cannot reach, masked ones too.
    apply_masks(network, masks)
