"""Removing single weights: score, choose masks, hold them, and compact what they emptied.

Stage: pipeline. In: a state. Out: the next one.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from torch import Tensor

from prunecli import crew
from prunecli.choices import Strategy
from prunecli.graph.maskable import Maskable, maskables
from prunecli.importance.deviation import deviations
from prunecli.importance.weights import score_weights
from prunecli.pipeline.cutting import reconstruct_layers
from prunecli.pipeline.job import Job, Pace
from prunecli.pipeline.packing import pack_masks, unpack_masks
from prunecli.pipeline.state import Analysis, EmptiedPlan, State, analysed, owned
from prunecli.pipeline.told import weights_step
from prunecli.removal import WeightsWanted
from prunecli.selection.maskplan import MaskPlan
from prunecli.selection.masks import choose_masks
from prunecli.selection.plan import kept_indices
from prunecli.surgery.kept import make_kept
from prunecli.surgery.masks import compact_masked


def mask_weights(job: Job, state: State, pace: Pace) -> State:
    """Mask the weights that are to be gone at `pace`.

    Raises:
        ConfigError, TargetError: see `choose_masks`.
    """
    with job.ledger.stage("mask"), job.reporter.step("choosing weights"):
        state, found = analysed(state)
        own = weights_of(job, state, found)
        wanted = job.config.removal.weights
        chosen = job.journal.once(
            "masks",
            lambda: choose_weights(job, state, own, pace.share, state.masks, wanted),
            pack_masks,
            unpack_masks,
        )
        job.ledger.step(weights_step(job.config.removal, chosen, pace.number))
        masked = replace(owned(state), masks=chosen.masks, weights=_count(own, chosen.masks))
    everything = np.ones(found.coupling.count, dtype=np.bool_)
    kept = make_kept(found.flow, found.coupling, everything)
    reconstruct_layers(job, state, masked.network, kept, chosen.masks)
    return masked


def weights_of(job: Job, state: State, found: Analysis) -> tuple[Maskable, ...]:
    """What may be masked."""
    return maskables(state.captured, found.flow, biases=job.config.removal.weights.biases)


def choose_weights(
    job: Job,
    state: State,
    own: tuple[Maskable, ...],
    progress: float,
    current: Mapping[str, Tensor],
    wanted: WeightsWanted,
) -> MaskPlan:
    """Score and choose: masks under which `progress` of everything wanted is gone."""
    removal = job.config.removal
    mix = removal.criterion(Strategy.WEIGHT)
    scores = score_weights(
        state.captured,
        own,
        mix,
        job.calibration(state.captured) if mix.needs_data(Strategy.WEIGHT) else None,
        job.seed,
        job.reporter,
    )
    dynamic = removal.choosing.threshold is not None and removal.choosing.threshold.dynamic
    spread = deviations(state.network, own, current) if dynamic else None
    chosen = choose_masks(
        scores,
        own,
        wanted,
        removal.choosing,
        current,
        deviations=spread,
        progress=progress,
    )
    return crew.shared(chosen)


def _count(own: tuple[Maskable, ...], masks: Mapping[str, Tensor]) -> tuple[int, int]:
    """Maskable weights, and those that stay."""
    total = sum(item.size for item in own)
    gone = sum(int((~masks[item.name]).sum()) for item in own if item.name in masks)
    return total, total - gone


def recount(job: Job, state: State, masks: Mapping[str, Tensor]) -> State:
    """The state with these masks, which hold already."""
    state, found = analysed(state)
    return replace(state, masks=masks, weights=_count(weights_of(job, state, found), masks))


def compact_emptied(job: Job, state: State) -> State:
    """Remove the units that masks have emptied; exactly, as `compact_masked` checks."""
    if not state.masks:
        return state
    with job.ledger.stage("compact emptied"), job.reporter.step("removing emptied channels"):
        state, found = analysed(state)
        block = job.config.removal.units.round_to
        done = compact_masked(state.captured, found.flow, found.coupling, state.masks, block)
        if done.removed:
            job.ledger.remark(
                f"{done.removed} channels that the masks had emptied were removed; what the "
                "network computes stays the same"
            )
        if done.alive:
            job.ledger.remark(
                f"{done.alive} emptied channels stay, because they pass on a constant (a bias, a "
                "norm), must go together with others, or keep a width on a multiple (--round-to)"
            )
        if not done.removed:
            return state
        smaller = replace(
            state,
            captured=replace(state.captured, network=done.network),
            masks=done.masks,
            plans=(*state.plans, EmptiedPlan(kept_indices(found.coupling, done.kept.keep[:-1]))),
            stale=True,
            analysis=None,
        )
        return analysed(smaller)[0]
