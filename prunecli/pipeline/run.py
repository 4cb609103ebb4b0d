"""One `prunecli prune`, from checkpoint to table.

Stage: pipeline. Reads as the data flows: prepare -> judge the original -> plan -> compact ->
recover -> export -> verify -> measure -> report. Parses nothing, prints nothing.
"""

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from torch import Tensor, fx

from prunecli.config import RunConfig
from prunecli.export.onnx_file import (
    Exportable,
    make_exportable,
    write_onnx,
    write_program,
)
from prunecli.export.verify import verify_outputs, verify_shrunk
from prunecli.files import rename_together, writing
from prunecli.graph.cost import Cost
from prunecli.measure.score import Score
from prunecli.pipeline.cutting import cut
from prunecli.pipeline.judge import check_chance, measure, score
from prunecli.pipeline.ledger import Ledger
from prunecli.pipeline.outputs import Outputs, choose_outputs, room_for
from prunecli.pipeline.planning import Planned, plan
from prunecli.pipeline.prepare import Prepared, prepare
from prunecli.progress import Reporter
from prunecli.recovery import check_training, choose_device, finetune
from prunecli.report import record
from prunecli.report.record import Report, RowName

BYTES_PER_WEIGHT = 4


@dataclass
class _Files:
    """Exports of one run, in a folder that goes with it; renamed only when all is well.

    Attributes:
        final: what messages name.
    """

    folder: Path
    final: Path
    onnx: dict[RowName, Path] = field(default_factory=dict)
    scores: dict[RowName, Score] = field(default_factory=dict)

    def path(self, name: RowName) -> Path:
        return self.folder / f"{name.value}.onnx"


def prune(config: RunConfig, reporter: Reporter) -> Report:
    """Run the whole job.

    Returns:
        The report; with `dry_run`, the plan only, and nothing is written.

    Raises:
        PrunecliError: bad input (exit code 2), or a result that must not be shipped (1).
    """
    check_training(config.train)
    choose_device(config.train.device)
    outputs = choose_outputs(config)
    if config.dry_run:
        ledger = Ledger(_first_report(config), None)
        plan(config, prepare(config, ledger, reporter).captured, ledger, reporter)
        ledger.note(status="ok")
        return ledger.report
    with room_for(outputs) as folder:
        ledger = Ledger(_first_report(config), config.report)
        _run(config, outputs, _Files(folder, outputs.onnx), ledger, reporter)
    ledger.note(status="ok")
    ledger.write()
    return ledger.report


def _run(
    config: RunConfig, outputs: Outputs, files: _Files, ledger: Ledger, reporter: Reporter
) -> None:
    prepared = prepare(config, ledger, reporter)
    _export_original(config, prepared, files, ledger, reporter)
    planned = plan(config, prepared.captured, ledger, reporter)
    network = cut(config, prepared, planned, ledger, reporter)
    exportable = _export(
        config, prepared, planned, network, RowName.PRUNED, files, ledger, reporter
    )
    if prepared.data is not None and config.train.epochs > 0:
        _recover(config, prepared, network, ledger, reporter)
        exportable = _export(
            config, prepared, planned, network, RowName.FINE_TUNED, files, ledger, reporter
        )
    _measure(config, prepared, planned, files, ledger, reporter)
    _ship(outputs, planned, exportable, files, ledger)


def _first_report(config: RunConfig) -> Report:
    target, strategy = config.removal.units.target, config.removal.strategies[0]
    assert target is not None
    return Report(
        command=config.command,
        dry_run=config.dry_run,
        versions=record.Versions(
            version("prunecli"),
            platform.python_version(),
            *(version(name) for name in ("torch", "onnx", "onnxruntime")),
        ),
        requested=record.Requested(
            target.in_words(),
            target.quantity,
            target.text,
            config.removal.criterion(strategy).parts[0][0],
            strategy,
            config.train.seed,
        ),
    )


def _export_original(
    config: RunConfig, prepared: Prepared, files: _Files, ledger: Ledger, reporter: Reporter
) -> None:
    """The original as an ONNX file, and its score: before anything else, is the setup right?"""
    captured = prepared.captured
    path = files.path(RowName.ORIGINAL)
    with ledger.stage("export original"), reporter.step("exporting the original"):
        exportable = make_exportable(captured.network, captured)
        with writing(files.final):
            write_onnx(exportable, path, {})
        verified = verify_outputs(
            path, captured.network, exportable, config.atol, config.train.seed
        )
        if verified.unvaried:
            ledger.remark(
                f"axes {', '.join(verified.unvaried)} were checked in onnxruntime at one length "
                "only: the network refuses a shorter one"
            )
        files.onnx[RowName.ORIGINAL] = path
    if prepared.data is not None:
        with ledger.stage("score original"):
            found = score(path, prepared.data, reporter)
            check_chance(found, ledger, reporter)
            files.scores[RowName.ORIGINAL] = found


def _recover(
    config: RunConfig,
    prepared: Prepared,
    network: fx.GraphModule,
    ledger: Ledger,
    reporter: Reporter,
) -> None:
    assert prepared.data is not None
    with ledger.stage("fine-tune"):
        result = finetune(network, prepared.data, config.train, reporter)
        ledger.note(
            training=tuple(
                record.EpochRow(
                    item.epoch, item.train_loss, item.score, item.lr, round(item.seconds, 3)
                )
                for item in result.curve
            ),
            best_epoch=result.best_epoch,
        )
        ledger.remark(*result.notes)


def _export(
    config: RunConfig,
    prepared: Prepared,
    planned: Planned,
    network: fx.GraphModule,
    name: RowName,
    files: _Files,
    ledger: Ledger,
    reporter: Reporter,
) -> Exportable:
    captured, path = prepared.captured, files.path(name)
    with ledger.stage(f"export {name.value}"), reporter.step(f"exporting the {name.value} network"):
        exportable = make_exportable(network, captured)
        with writing(files.final):
            write_onnx(exportable, path, _metadata(config, prepared, planned))
        verified = verify_outputs(path, network, exportable, config.atol, config.train.seed)
        removed = planned.plan.before.params - planned.plan.after.params
        before, after = verify_shrunk(files.onnx[RowName.ORIGINAL], path, removed)
        files.onnx[name] = path
        ledger.note(
            checks=record.Checks(
                ledger.report.checks.oracle_difference,
                ledger.report.checks.oracle_tolerance,
                verified.difference,
                config.atol,
                verified.batches,
                before * BYTES_PER_WEIGHT,
                after * BYTES_PER_WEIGHT,
            )
        )
    if prepared.data is not None:
        with ledger.stage(f"score {name.value}"):
            files.scores[name] = score(path, prepared.data, reporter)
    return exportable


def _metadata(config: RunConfig, prepared: Prepared, planned: Planned) -> Mapping[str, str]:
    """What made the file, for whoever finds it later."""
    return {
        "prunecli.version": version("prunecli"),
        "prunecli.command": config.command,
        "prunecli.checkpoint": config.model.checkpoint.name,
        "prunecli.checkpoint_sha256": prepared.sha256,
        "prunecli.plan": planned.plan.to_json(),
        "prunecli.versions": ", ".join(
            f"{name} {version(name)}" for name in ("torch", "onnx", "onnxruntime")
        ),
    }


def _measure(
    config: RunConfig,
    prepared: Prepared,
    planned: Planned,
    files: _Files,
    ledger: Ledger,
    reporter: Reporter,
) -> None:
    costs: dict[RowName, Cost] = dict.fromkeys(files.onnx, planned.plan.after)
    costs[RowName.ORIGINAL] = planned.plan.before
    with ledger.stage("measure"):
        measure(
            files.onnx,
            costs,
            files.scores,
            _latency_inputs(prepared),
            config.measure,
            ledger,
            reporter,
        )


def _latency_inputs(prepared: Prepared) -> tuple[Tensor, ...]:
    """Real examples where there are some: values can matter for speed (denormals, zeros)."""
    if prepared.data is not None:
        return (prepared.data.preprocess(prepared.data.validation.inputs[:8]),)
    return prepared.captured.inputs


def _ship(
    outputs: Outputs, planned: Planned, exportable: Exportable, files: _Files, ledger: Ledger
) -> None:
    """Everything was verified and measured: give the files their names, the ONNX file last."""
    program, text = files.folder / "model.pt2", files.folder / "plan.json"
    onnx = files.onnx[next(reversed(files.onnx))]
    with ledger.stage("write"):
        with writing(outputs.program):
            write_program(exportable, program)
        with writing(outputs.plan):
            text.write_text(planned.plan.to_json(), encoding="utf-8")
        rename_together(((program, outputs.program), (text, outputs.plan), (onnx, outputs.onnx)))
        ledger.note(files={kind: str(path) for kind, path in outputs.named().items()})
