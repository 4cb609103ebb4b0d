"""Removing whole residual blocks and transformer layers: find, score, choose, rewire.

Stage: pipeline. In: a state. Out: the next one.
"""

from collections.abc import Sequence
from dataclasses import replace

from prunecli import crew
from prunecli.choices import Strategy
from prunecli.errors import ConfigError
from prunecli.graph.blocks import Block, find_blocks
from prunecli.importance.blocks import score_blocks
from prunecli.pipeline.job import Job, Pace
from prunecli.pipeline.packing import pack_scores, unpack_scores
from prunecli.pipeline.state import State, analysed
from prunecli.pipeline.told import layers_step
from prunecli.removal import Choosing, LayersWanted, Removal
from prunecli.selection.layers import LayerPlan, LayerRow, choose_layers, idle_rules
from prunecli.surgery.layers import drop_blocks


def drop_layers(job: Job, state: State, pace: Pace) -> State:
    """Drop the layers that are to be gone at `pace`.

    Raises:
        NothingToPruneError: no layer leaves a path.
        TargetError: more are to go than there are.
        VerificationError: the shallower network is not what it should be.
    """
    removal = job.config.removal
    mix = removal.criterion(Strategy.LAYER)
    with job.ledger.stage("plan"), job.reporter.step("finding layers that leave a path"):
        state, found = analysed(state)
        blocks = find_blocks(state.captured, found.flow)
        before, _ = state.layers or (len(blocks), 0)
        wanted = removal.layers
        if removal.choosing.threshold is None:
            number = round(wanted.number(before) * pace.share) - (before - len(blocks))
            # Of a few layers, a round may have none to drop; of none, that is an error.
            if number <= 0 and (pace.share < 1.0 or len(blocks) < before):
                return state
            wanted = LayersWanted(count=number)
    scores = job.journal.once(
        "layers",
        lambda: score_blocks(
            state.captured,
            found.flow,
            blocks,
            mix,
            job.calibration(state.captured) if mix.needs_data(Strategy.LAYER) else None,
            job.seed,
            job.reporter,
        ),
        pack_scores,
        unpack_scores,
    )
    with job.ledger.stage("drop"), job.reporter.step("dropping layers and checking"):
        chosen = crew.shared(
            choose_layers(
                blocks,
                scores,
                wanted,
                _with_rules(removal, blocks),
                mix.in_words(),
                job.seed,
                before=_dropped(state),
            )
        )
        job.ledger.step(layers_step(removal, chosen, pace.number))
        captured = drop_blocks(state.captured, blocks, chosen.dropped)
    left = (before, len(blocks) - len(chosen.dropped))
    shallower = replace(
        state,
        captured=captured,
        plans=(*state.plans, chosen),
        analysis=None,
        layers=left,
    )
    return analysed(shallower)[0]


def _dropped(state: State) -> list[LayerRow]:
    """What earlier rounds dropped, of which the shares of `--layer` are shares too."""
    plans = (plan for plan in state.plans if isinstance(plan, LayerPlan))
    return [row for plan in plans for row in plan.rows if row.dropped]


def _with_rules(removal: Removal, blocks: Sequence[Block]) -> Choosing:
    """What the user says about choosing; of several strategies, some rules concern others only.

    Raises:
        ConfigError: a rule concerns nothing in this run.
    """
    choosing = removal.choosing
    idle = idle_rules(blocks, choosing)
    if idle and len(removal.strategies) == 1:
        raise ConfigError(
            f"--layer: must match a layer that can be dropped, got {idle[0].pattern}",
            f"such layers are {', '.join(block.name for block in blocks[:8])}",
        )
    return replace(choosing, rules=tuple(rule for rule in choosing.rules if rule not in idle))
