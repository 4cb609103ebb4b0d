"""Removing while the network trains: single weights by masks that grow, whole units softly.

Stage: pipeline. In: a state. Out: the next one. A unit goes softly when everything that belongs
to it is masked; at the end of the ramp such units are cut out, and training goes on without them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from prunecli.choices import Strategy
from prunecli.graph.cost import Keep
from prunecli.graph.maskable import Maskable
from prunecli.pipeline.cutting import apply_plan, choose_units, wanted_units, with_rules
from prunecli.pipeline.job import Job, Pace
from prunecli.pipeline.masking import choose_weights, recount, weights_of
from prunecli.pipeline.packing import pack_masks, pack_units, unpack_masks, unpack_units
from prunecli.pipeline.state import Analysis, State, analysed, owned
from prunecli.pipeline.told import units_step, weights_step
from prunecli.pipeline.training import train, train_to_the_end
from prunecli.recovery.companion import Memory
from prunecli.recovery.densify import DenseAtEnd
from prunecli.recovery.gradual import Gradual
from prunecli.recovery.soft_units import unit_masks
from prunecli.removal import WeightsWanted
from prunecli.selection.maskplan import MaskPlan
from prunecli.selection.plan import Plan, kept_units

Masks = Mapping[str, Tensor]


@dataclass
class _Chooser:
    """Chooses masks for a rising share of what is asked for, and keeps the last plans.

    Attributes:
        own: weights that may be masked one by one; empty without that strategy.
        gone: units that have gone softly, shape (units,).
        pace: how far the rise goes.
        plan, masks: what was chosen last.
    """

    job: Job
    state: State
    found: Analysis
    own: tuple[Maskable, ...]
    gone: Keep
    pace: Pace
    plan: Plan | None = None
    masks: MaskPlan | None = None

    def __call__(self, share: float, current: Masks) -> Masks:
        """Masks of everything that is gone at `share` of what goes in all."""
        share *= self.pace.share
        units = self._units(share) if self.job.config.removal.by_units is not None else {}
        if not self.own:
            return units
        so_far = _both(current, units)
        weights = self._wanted_weights(share, units)
        self.masks = choose_weights(self.job, self.state, self.own, share, so_far, weights)
        return _both(self.masks.masks, units)

    def memory(self) -> Memory:
        """What was chosen last, as plain values."""
        return {
            "gone": torch.from_numpy(self.gone.copy()),
            "plan": None if self.plan is None else dict(pack_units(self.plan)),
            "masks": None if self.masks is None else dict(pack_masks(self.masks)),
        }

    def recall(self, memory: Memory) -> None:
        """Go on from there."""
        plan, masks = memory["plan"], memory["masks"]
        self.gone = memory["gone"].numpy()
        self.plan = None if plan is None else unpack_units(plan)
        self.masks = None if masks is None else unpack_masks(masks)

    def _wanted_weights(self, share: float, units: Masks) -> WeightsWanted:
        """The sparsity asked for is one of what the units leave, and what went with them is
        masked too."""
        wanted = self.job.config.removal.weights
        total = sum(item.size for item in self.own)
        gone = sum(int((~units[item.name]).sum()) for item in self.own if item.name in units)
        if wanted.sparsity is None or not gone:
            return wanted
        return replace(wanted, sparsity=(gone / share + wanted.sparsity * (total - gone)) / total)

    def _units(self, share: float) -> dict[str, Tensor]:
        job, coupling = self.job, self.found.coupling
        wanted = wanted_units(job, self.state, self.found, share) if share > 0.0 else None
        if wanted is None:
            return {}
        choosing = with_rules(job, self.found, lambda rule: rule.share * share)
        self.plan = choose_units(job, self.state, self.found, wanted, choosing, self.gone)
        keep = kept_units(self.plan, coupling)
        self.gone = ~keep
        return unit_masks(self.state.network, coupling, keep)


def prune_gradually(job: Job, state: State, pace: Pace) -> State:
    """Train for all epochs; on the way the removed share rises along the curve to that of `pace`,
    before which nothing was removed."""
    timing, epochs = job.config.removal.timing, job.config.train.epochs
    by_units = job.config.removal.by_units is not None
    state, found = analysed(state)
    state = owned(state)
    by_weights = Strategy.WEIGHT in job.config.removal.strategies
    own = weights_of(job, state, found) if by_weights else ()
    none = np.zeros(found.coupling.count, dtype=np.bool_)
    chooser = _Chooser(job, state, found, own, none, pace)
    if not by_units:
        return _weights_only(job, state, chooser, epochs)
    ramp = replace(timing, begin=timing.begin / timing.end, end=1.0, dense_epochs=0.0)
    companion = Gradual(ramp, chooser, chooser)
    state = train(job, state, epochs * timing.end, companion=companion, phase="gradual pruning")
    assert chooser.plan is not None
    job.ledger.step(units_step(job.config.removal, chooser.plan, pace.number))
    masks = {} if chooser.masks is None else dict(chooser.masks.masks)
    _tell(job, chooser)
    state = apply_plan(job, replace(state, masks=masks), found, chooser.plan)
    if by_weights:
        state = recount(job, state, state.masks)
    return train_to_the_end(job, state, epochs * (1.0 - timing.end), offset=1)


def _weights_only(job: Job, state: State, chooser: _Chooser, epochs: float) -> State:
    timing = job.config.removal.timing
    gradual = Gradual(timing, chooser, chooser)
    dense = timing.dense_epochs / epochs
    companion = DenseAtEnd(gradual, dense) if dense else gradual
    state = train(job, state, epochs, companion=companion, phase="gradual pruning")
    _tell(job, chooser)
    return recount(job, state, companion.masks)


def _tell(job: Job, chooser: _Chooser) -> None:
    if chooser.masks is not None:
        job.ledger.step(weights_step(job.config.removal, chooser.masks, chooser.pace.number))


def _both(one: Masks, two: Masks) -> dict[str, Tensor]:
    found = dict(one)
    for name, mask in two.items():
        found[name] = found[name] & mask if name in found else mask
    return found
