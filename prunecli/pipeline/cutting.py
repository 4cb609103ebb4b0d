"""Third part of a run: remove what the plan says, check it, and recover without training.

Stage: pipeline. In: `Prepared` and `Planned`. Out: the compact network.
"""

import torch
from torch import Tensor, fx

from prunecli.choices import Recovery
from prunecli.config import RunConfig
from prunecli.data import DataSet
from prunecli.pipeline.ledger import Ledger
from prunecli.pipeline.planning import Planned
from prunecli.pipeline.prepare import Prepared
from prunecli.progress import Reporter
from prunecli.recovery import affordable, reconstruct
from prunecli.report import record
from prunecli.selection.plan import kept_units
from prunecli.surgery.compact import compact
from prunecli.surgery.kept import make_kept
from prunecli.surgery.oracle import TOLERANCE, check

CALIBRATION_EXAMPLES = 1024
"""Unlabelled training examples for reconstruction; fewer where memory allows no more."""


def cut(
    config: RunConfig, prepared: Prepared, planned: Planned, ledger: Ledger, reporter: Reporter
) -> fx.GraphModule:
    """Compact, compare with the original, reconstruct.

    Raises:
        VerificationError: the compact network is not what the plan says.
    """
    captured = prepared.captured
    with ledger.stage("compact"), reporter.step("removing and checking against the original"):
        keep = kept_units(planned.plan, planned.coupling)
        kept = make_kept(planned.flow, planned.coupling, keep)
        network = compact(captured, kept)
        result = check(captured, network, kept)
        ledger.note(
            checks=record.Checks(
                oracle_difference=max(result.difference, result.worst),
                oracle_tolerance=TOLERANCE,
            )
        )
    if prepared.data is not None and config.recover is Recovery.RECONSTRUCT:
        with ledger.stage("reconstruct"):
            number = affordable(captured, CALIBRATION_EXAMPLES)
            if not captured.dynamic_batch:
                number = captured.batch
            examples = calibration(prepared.data, number, config.train.seed)
            done = reconstruct(captured, network, kept, examples, reporter, config.train.seed)
            ledger.remark(
                f"reconstructed {done.layers} layers from {done.examples} unlabelled training "
                "examples before any training"
            )
    return network


def calibration(data: DataSet, number: int, seed: int) -> Tensor:
    """Prepared inputs of random training examples, at most `number`."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.randperm(len(data.train), generator=generator)[:number]
    return data.preprocess(data.train.inputs[places])
