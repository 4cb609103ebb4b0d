"""One `prunecli prune`, from checkpoint to table.

Stage: pipeline. Reads as the data flows: prepare -> judge the original -> remove and recover, in
rounds -> export -> verify -> measure -> report. Parses nothing, prints nothing.
"""

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from torch import Tensor

from prunecli import crew, launch
from prunecli.choices import DeviceName, PruneSchedule, Strategy
from prunecli.config import RunConfig
from prunecli.export.onnx_file import Exportable, write_program
from prunecli.files import rename_together, workspace, writing
from prunecli.pipeline.board import check_board
from prunecli.pipeline.exporting import Exporter, Files
from prunecli.pipeline.goal import check_margins
from prunecli.pipeline.job import Job
from prunecli.pipeline.journal import Journal, journal_in
from prunecli.pipeline.judge import measure
from prunecli.pipeline.ledger import Ledger
from prunecli.pipeline.outputs import Outputs, choose_outputs, room_for
from prunecli.pipeline.planning import check_flags, note_outcome, warn_if_far
from prunecli.pipeline.prepare import Prepared, prepare
from prunecli.pipeline.rounds import predict, shrink
from prunecli.pipeline.saved import Saved, plans_to_json, saved_to_json
from prunecli.pipeline.starts import Command, start_of
from prunecli.pipeline.state import State, analyse, whole
from prunecli.pipeline.told import in_words
from prunecli.progress import Reporter
from prunecli.recovery import changes_for, check_driving, check_training
from prunecli.report import record
from prunecli.report.record import Report, RowName


def prune(config: RunConfig, reporter: Reporter, *, again: bool = False) -> Report:
    """Run the whole job.

    Args:
        again: go on with the run that was begun with this configuration and did not end.

    Returns:
        The report; with `dry_run`, the plan only, and nothing is written.

    Raises:
        PrunecliError: bad input (exit code 2), or a result that must not be shipped (1).
    """
    if config.dry_run:
        return _predict(config, reporter) if launch.is_main() else first_report(config)
    with crew.joined(cpu=config.train.device is DeviceName.CPU):
        if launch.is_main():
            return _write(config, reporter, again=again)
        return _assist(config, reporter)


def _check(config: RunConfig) -> Outputs:
    """Everything that can be refused before any work is done."""
    check_training(config.train)
    check_driving(config.train)
    check_board(config)
    return choose_outputs(config)


def _predict(config: RunConfig, reporter: Reporter) -> Report:
    """The plan only."""
    _check(config)
    ledger = Ledger(first_report(config), None)
    job, state = begin(config, prepare(config, ledger, reporter), ledger, reporter)
    found = predict(job, state)
    note_outcome(job, found)
    warn_if_far(job, found)
    ledger.note(status="ok")
    return ledger.report


@contextmanager
def workplace(
    outputs: Outputs, reporter: Reporter, *, keep: bool, again: bool
) -> Iterator[tuple[Journal, Path]]:
    """The journal of a run, and a folder for files that are not finished; nobody else writes these
    outputs meanwhile.

    Args:
        keep, again: see `journal_in`.

    Raises:
        OutputError: something cannot be written.
        StateError: another process writes it.
    """
    finals = outputs.named().values()
    with (
        room_for(outputs),
        journal_in(outputs.state, reporter, keep=keep, again=again, finals=finals) as journal,
        workspace(outputs.run) as folder,
    ):
        yield journal, folder


def _write(config: RunConfig, reporter: Reporter, *, again: bool) -> Report:
    """The whole job, in the main process."""
    outputs = _check(config)
    with workplace(outputs, reporter, keep=config.keep_run, again=again) as (journal, folder):
        ledger = Ledger(first_report(config), config.report)
        prepared = prepare(config, ledger, reporter)
        files = Files(folder, outputs.onnx)
        exporter = Exporter(config, prepared, files, ledger, reporter, journal)
        job, state = begin(config, prepared, ledger, reporter, journal)
        journal.begin(start_of(Command.PRUNE, config, config, prepared), reporter)
        exporter.original(state.cost)
        result = shrink(job, state, exporter.untrained)
        finish(job, result, exporter, outputs)
    ledger.write()
    return ledger.report


def _assist(config: RunConfig, reporter: Reporter) -> Report:
    """The same in another process: what becomes of the network, and no files."""
    _check(config)
    ledger = Ledger(first_report(config), None)
    job, state = begin(config, prepare(config, ledger, reporter), ledger, reporter)
    shrink(job, state, lambda _: None)
    return ledger.report


def finish(job: Job, state: State, exporter: Exporter, outputs: Outputs) -> None:
    """Export, verify, measure and ship a result."""
    note_outcome(job, state)
    warn_if_far(job, state)
    name = RowName.FINE_TUNED if state.trained else RowName.PRUNED
    exportable = exporter.state(name, state)
    _measure(job, exporter.files)
    _ship(job, state, outputs, exportable, exporter.files)


def begin(
    config: RunConfig,
    prepared: Prepared,
    ledger: Ledger,
    reporter: Reporter,
    journal: Journal | None = None,
) -> tuple[Job, State]:
    """The original as a state; flags that do not suit it or the data are refused.

    Args:
        journal: of the run; left out, nothing is kept.

    Raises:
        ConfigError: such a flag.
        NothingToPruneError: every part is frozen.
    """
    with ledger.stage("analyse"), reporter.step("analysing the network"):
        found = analyse(prepared.captured)
        cost = whole(found)
        check_flags(config, prepared.captured, found, ledger)
        if prepared.data is not None:
            changes_for(prepared.data, config.train)
            check_margins(config, prepared.data)
    # Where one process cannot even begin, none leaves anything to go on with.
    crew.meet()
    job = Job(config, prepared, ledger, reporter, cost, journal or Journal())
    return job, State(prepared.captured, cost, analysis=found)


def first_report(config: RunConfig) -> Report:
    """What is known before anything is done."""
    removal, timing = config.removal, config.removal.timing
    schedule = timing.schedule.value
    if timing.schedule is PruneSchedule.ITERATIVE:
        schedule += f", {timing.rounds} rounds"
    return Report(
        command=config.command,
        dry_run=config.dry_run,
        versions=record.Versions(
            version("prunecli"),
            platform.python_version(),
            *(version(name) for name in ("torch", "onnx", "onnxruntime")),
        ),
        requested=record.Requested(
            tuple(_asked(config, strategy) for strategy in removal.strategies),
            schedule,
            config.train.seed,
        ),
    )


def _asked(config: RunConfig, strategy: Strategy) -> record.Asked:
    removal = config.removal
    target = removal.units.target if strategy is removal.by_units else None
    return record.Asked(
        strategy,
        removal.criterion(strategy).in_words(),
        in_words(removal, strategy),
        None if target is None else target.quantity,
    )


def _measure(job: Job, files: Files) -> None:
    with job.ledger.stage("measure"):
        measure(
            files.onnx,
            files.costs,
            files.nonzero,
            files.scores,
            _latency_inputs(job.prepared),
            job.config.measure,
            job.ledger,
            job.reporter,
        )


def _latency_inputs(prepared: Prepared) -> tuple[Tensor, ...]:
    """Real examples where there are some: values can matter for speed (denormals, zeros)."""
    if prepared.data is not None:
        stored = prepared.data.validation.inputs
        return prepared.data.prepare(tuple(item[:8] for item in stored))
    return prepared.captured.inputs


def _ship(job: Job, state: State, outputs: Outputs, exportable: Exportable, files: Files) -> None:
    """Everything was verified and measured: give the files their names, the ONNX file last."""
    ledger = job.ledger
    program, text, run = (files.folder / name for name in ("model.pt2", "plan.json", "run.json"))
    onnx = files.onnx[next(reversed(files.onnx))]
    with ledger.stage("write"):
        with writing(outputs.program):
            write_program(exportable, program)
        named = {kind: str(path) for kind, path in outputs.named().items()}
        report = replace(ledger.report, files=named, status="ok")
        saved = Saved(
            job.config,
            job.prepared.sha256,
            state.plans,
            tuple(state.masks),
            report,
            state.trained,
            outputs.program,
        )
        with writing(outputs.plan):
            text.write_text(plans_to_json(state.plans), encoding="utf-8")
            run.write_text(saved_to_json(saved), encoding="utf-8")
        rename_together(
            (
                (program, outputs.program),
                (text, outputs.plan),
                (run, outputs.run),
                (onnx, outputs.onnx),
            )
        )
        ledger.note(files=named)
    ledger.note(status="ok")
