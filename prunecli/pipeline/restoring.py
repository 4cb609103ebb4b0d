"""`prunecli restore`: layers of a pruned network get back what they lost.

Stage: pipeline. In: the folder that a run left. Out: a run of its own. The original is loaded
again, what the run removed is removed again but for what returns, and what stayed is given the
values that it had learnt. What returns has the original's values.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, fx

from prunecli import crew, launch
from prunecli.choices import DeviceName, Strategy
from prunecli.config import ModelConfig, RestoreConfig, RunConfig
from prunecli.errors import CheckpointError, ConfigError
from prunecli.files import sha256_of
from prunecli.graph.blocks import find_blocks
from prunecli.graph.capture import capture_program
from prunecli.graph.cost import Keep
from prunecli.graph.coupling import STAYS, Coupling, layer_of
from prunecli.graph.nodes import attribute
from prunecli.loading import load_model
from prunecli.pipeline.cutting import reconstruct_layers
from prunecli.pipeline.exporting import Exporter, Files
from prunecli.pipeline.job import Job
from prunecli.pipeline.journal import Journal
from prunecli.pipeline.ledger import Ledger
from prunecli.pipeline.masking import recount
from prunecli.pipeline.outputs import choose_outputs
from prunecli.pipeline.prepare import prepare
from prunecli.pipeline.run import begin, finish, first_report, workplace
from prunecli.pipeline.saved import Saved, read_saved
from prunecli.pipeline.starts import Command, start_of
from prunecli.pipeline.state import EmptiedPlan, State, Step, analysed, composed
from prunecli.pipeline.training import train
from prunecli.pipeline.trust import check_code
from prunecli.progress import Reporter
from prunecli.recovery import check_driving
from prunecli.removal import fits
from prunecli.report.record import Report
from prunecli.selection.layers import LayerPlan
from prunecli.selection.overrides import layers_of
from prunecli.selection.plan import Tensors, kept_indices
from prunecli.selection.steps import linked
from prunecli.surgery.compact import compact
from prunecli.surgery.kept import make_kept
from prunecli.surgery.layers import drop_blocks
from prunecli.surgery.restoring import expanded
from prunecli.timing import Timing
from prunecli.tuning import training_again


@dataclass(frozen=True)
class _Return:
    """What is asked back, and what was found of it.

    Attributes:
        patterns: of layers.
        found: descriptions of what returns.
    """

    patterns: tuple[str, ...]
    found: list[str]

    def asks(self, *names: str) -> bool:
        """Whether one of these layers is asked back."""
        return any(fits(pattern, name) for pattern in self.patterns for name in names)


def restore(config: RestoreConfig, reporter: Reporter, *, again: bool = False) -> Report:
    """Give layers back and fine-tune on.

    Args:
        again: go on with what was begun with this configuration and did not end.

    Raises:
        ConfigError: not a run, or nothing that it removed matches.
        CheckpointError: the original is not what it was.
        PrunecliError: see the stages.
    """
    saved = read_saved(config.run)
    run = _run_config(config, saved)
    check_code(config.run, run, config.model, config.task, reporter)
    back = _Return(config.layers, [])
    with crew.joined(cpu=run.train.device is DeviceName.CPU):
        if launch.is_main():
            return _write(config, run, saved, back, reporter, again=again)
        ledger = Ledger(first_report(run), None)
        _given_back(*_original(run, saved, ledger, reporter), saved, back)
        return ledger.report


def _write(
    config: RestoreConfig,
    run: RunConfig,
    saved: Saved,
    back: _Return,
    reporter: Reporter,
    *,
    again: bool,
) -> Report:
    """The whole job, in the main process."""
    outputs = choose_outputs(run)
    with workplace(outputs, reporter, keep=config.keep_run, again=again) as (journal, folder):
        ledger = Ledger(first_report(run), run.report)
        job, state = _original(run, saved, ledger, reporter, journal)
        exporter = Exporter(
            run, job.prepared, Files(folder, outputs.onnx), ledger, reporter, journal
        )
        source = sha256_of(saved.program) if saved.program.is_file() else ""
        journal.begin(start_of(Command.RESTORE, config, run, job.prepared, source), reporter)
        exporter.original(state.cost)
        finish(job, _given_back(job, state, saved, back), exporter, outputs)
    ledger.write()
    return ledger.report


def restored_onnx(config: RestoreConfig) -> Path:
    """The network to ship."""
    return config.output or config.run.with_name(f"{config.run.stem}-restored.onnx")


def _original(
    run: RunConfig,
    saved: Saved,
    ledger: Ledger,
    reporter: Reporter,
    journal: Journal | None = None,
) -> tuple[Job, State]:
    """The network as it was before the run.

    Raises:
        CheckpointError: it is another one now.
    """
    check_driving(run.train)
    prepared = prepare(run, ledger, reporter)
    if prepared.sha256 != saved.sha256:
        raise CheckpointError(
            f"checkpoint {run.model.checkpoint}: must be the one that was pruned, got another "
            "one of that name",
            "put the original back, or prune again",
        )
    return begin(run, prepared, ledger, reporter, journal)


def _given_back(job: Job, state: State, saved: Saved, back: _Return) -> State:
    """The state with what returns, trained."""
    with job.ledger.stage("restore"), job.reporter.step("giving layers back"):
        state = _restored(job, state, saved, back)
    return train(job, state, job.config.train.epochs)


def _run_config(config: RestoreConfig, saved: Saved) -> RunConfig:
    """The configuration of the run that goes on."""
    before = saved.config
    return replace(
        before,
        removal=replace(before.removal, timing=Timing()),
        train=training_again(before.train, config.epochs),
        output=restored_onnx(config),
        report=config.report,
        dry_run=False,
        command=config.command,
        log_dir=None,
    )


def _restored(job: Job, state: State, saved: Saved, back: _Return) -> State:
    """The original without what the run removed, but with what returns.

    Raises:
        ConfigError: nothing that was removed matches.
    """
    state, plans = _without_layers(state, saved.plans, back)
    state, found = analysed(state)
    before = _kept_units(found.coupling, composed(saved.plans))
    keep = before | _asked_units(found.coupling, before, back)
    kept, wider = (make_kept(found.flow, found.coupling, item) for item in (before, keep))
    learnt = expanded(state.captured, _trained(saved), kept, wider)
    original = compact(state.captured, wider)
    masks = _masks(learnt, original, saved.masked, back)
    if not back.found:
        raise _nothing(saved, back)
    job.ledger.remark(*(f"restored: {words}" for words in back.found))
    # Where nothing was trained, the original's values are right everywhere: what reconstruction
    # changed made up for what returns now.
    network = learnt if saved.trained else original
    tensors = kept_indices(found.coupling, keep)
    if not saved.trained and (masks or tensors):
        reconstruct_layers(job, state, network, wider, masks)
    wide = replace(
        state,
        captured=replace(state.captured, network=network),
        masks=masks,
        plans=(*plans, *([EmptiedPlan(tensors)] if tensors else ())),
        stale=True,
        analysis=None,
        trained=saved.trained,
        units=(found.coupling.count, int(keep.sum())),
    )
    if Strategy.WEIGHT in job.config.removal.strategies:
        return recount(job, wide, masks)
    return analysed(wide)[0]


def _without_layers(state: State, plans: Sequence[Step], back: _Return) -> tuple[State, list[Step]]:
    """Drop again what was dropped, but for what is asked back."""
    rows = [row for plan in plans if isinstance(plan, LayerPlan) for row in plan.rows]
    gone = {row.name: row for row in rows if row.dropped}
    returning = [name for name, row in gone.items() if back.asks(name, *row.layers)]
    back.found.extend(f"the layer {name}" for name in returning)
    if not gone:
        return state, []
    again = [name for name in gone if name not in returning]
    state, found = analysed(state)
    blocks = find_blocks(state.captured, found.flow)
    first = next(plan for plan in plans if isinstance(plan, LayerPlan))
    left = replace(
        first,
        rows=tuple(replace(row, dropped=row.name in again) for row in first.rows),
    )
    state = replace(state, layers=(len(blocks), len(blocks) - len(again)))
    if not again:
        return state, []
    captured = drop_blocks(state.captured, blocks, again)
    return replace(state, captured=captured, analysis=None), [left]


def _kept_units(coupling: Coupling, tensors: Tensors) -> Keep:
    """Units that these indices keep. A unit is gone where any tensor lost it: tensors of layers
    that had been dropped know nothing of it."""
    keep = np.ones(coupling.count, dtype=np.bool_)
    for slot in coupling.slots:
        kept = tensors.get(slot.tensor, {}).get(slot.axis)
        if kept is not None:
            gone = ~np.isin(np.arange(slot.units.size), kept)
            keep[slot.units[gone & (slot.units != STAYS)]] = False
    return keep


def _asked_units(coupling: Coupling, keep: Keep, back: _Return) -> Keep:
    """Units of groups that are asked back, and of those that must lose equally many."""
    parts = linked(coupling)
    asked = np.zeros(coupling.count, dtype=np.bool_)
    for group in coupling.groups:
        layers = layers_of(coupling, group)
        lost = int((~keep[group.units]).sum())
        if lost and back.asks(*layers):
            asked |= parts == parts[group.units[0]]
            back.found.append(f"{lost} {group.kind} of {group.name} ({', '.join(layers[:4])})")
    return asked


def _trained(saved: Saved) -> fx.GraphModule:
    """The network that the run wrote.

    Raises:
        CheckpointError: it is not there any more.
    """
    if not saved.program.is_file():
        raise CheckpointError(
            f"run: {saved.program}, the network that it wrote, is needed, got no such file",
            "put the .pt2 file back where the run wrote it, or prune again",
        )
    program = load_model(ModelConfig(saved.program)).program
    assert program is not None
    return capture_program(program).network


def _masks(
    learnt: fx.GraphModule, original: fx.GraphModule, masked: Sequence[str], back: _Return
) -> dict[str, Tensor]:
    """Masks that go on holding: what is zero was masked. In layers that are asked back it gets
    the original's values."""
    there = dict(learnt.named_parameters())
    masks: dict[str, Tensor] = {}
    for name in masked:
        if name not in there:
            continue
        gone = there[name].detach() == 0
        if not back.asks(layer_of(name)):
            masks[name] = ~gone
            continue
        back.found.append(f"{int(gone.sum()):,} weights of {name}")
        with torch.no_grad():
            there[name].copy_(torch.where(gone, attribute(original, name), there[name]))
    return masks


def _nothing(saved: Saved, back: _Return) -> ConfigError:
    groups = [row.id for row in saved.report.groups if row.kept < row.total]
    dropped = [name for plan in saved.plans if isinstance(plan, LayerPlan) for name in plan.dropped]
    known = [*dropped, *groups, *dict.fromkeys(layer_of(name) for name in saved.masked)]
    return ConfigError(
        f"--layer: must match something that was removed, got {', '.join(back.patterns)}",
        f"removed: {', '.join(known[:8])}" if known else "nothing was removed in that run",
    )
