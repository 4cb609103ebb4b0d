"""Removing whole residual blocks and transformer layers: find, score, choose, rewire.

Stage: pipeline. In: a state. Out: the next one.
"""

from dataclasses import replace

from prunecli.choices import Strategy
from prunecli.graph.blocks import find_blocks
from prunecli.importance.blocks import score_blocks
from prunecli.pipeline.job import Job, Pace
from prunecli.pipeline.state import State, analysed
from prunecli.pipeline.told import layers_step
from prunecli.removal import LayersWanted
from prunecli.selection.layers import choose_layers
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
            if number <= 0 and pace.share < 1.0:
                return state
            wanted = LayersWanted(count=number)
    scores = score_blocks(
        state.captured,
        found.flow,
        blocks,
        mix,
        job.calibration(state.captured) if mix.needs_data(Strategy.LAYER) else None,
        job.seed,
        job.reporter,
    )
    with job.ledger.stage("drop"), job.reporter.step("dropping layers and checking"):
        chosen = choose_layers(blocks, scores, wanted, removal.choosing, mix.in_words(), job.seed)
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
