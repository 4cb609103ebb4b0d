"""`prunecli resume`: go on with a run that was interrupted, crashed or killed.

Stage: pipeline. In: the folder that it left. Out: what the run would have ended with. The run is
started again with the configuration that it began with; its journal spares it what was done.
"""

from dataclasses import replace
from pathlib import Path

from prunecli.config import RestoreConfig, ResumeConfig, RunConfig
from prunecli.errors import ConfigError
from prunecli.pipeline.journal import is_unfinished, readable
from prunecli.pipeline.outputs import SUFFIX, onnx_of
from prunecli.pipeline.restoring import restore, restored_onnx
from prunecli.pipeline.run import prune
from prunecli.pipeline.saved import STATE_FOLDER, from_anywhere, is_run
from prunecli.pipeline.starts import START_FILE, Command, Start, read_start
from prunecli.pipeline.trust import check_code
from prunecli.progress import Reporter
from prunecli.records import from_plain
from prunecli.report.record import Report

RUN_SUFFIX = ".run"


def resume(config: ResumeConfig, reporter: Reporter) -> Report:
    """Go on.

    Raises:
        ConfigError: there is nothing to go on with.
        StateError: what is there is damaged, or was begun with something else.
        PrunecliError: see `prune` and `restore`.
    """
    state = config.run / STATE_FOLDER
    if not is_unfinished(state):
        raise _nothing(config.run)
    start = read_start(state)
    with readable(state / START_FILE):
        begun = _config_of(start)
    begun = _here(begun, config.run)
    begun = replace(
        begun,
        report=config.report or begun.report,
        keep_run=config.keep_run or begun.keep_run,
    )
    reporter.say(f"going on with: {begun.command}")
    if isinstance(begun, RestoreConfig):
        # What the user says now, not what the folder says that was said.
        begun = replace(begun, model=config.model, task=config.task)
        return restore(begun, reporter, again=True)
    check_code(config.run, begun, config.model, config.task, reporter)
    return prune(begun, reporter, again=True)


def _config_of(start: Start) -> RunConfig | RestoreConfig:
    """What was asked for, with paths that hold in the current folder."""
    folder = Path(start.folder)
    elsewhere = folder != Path.cwd()
    if start.command is Command.RESTORE:
        restoring = from_plain(RestoreConfig, start.config)
        if not elsewhere:
            return restoring
        output, report = _from(folder, restoring.output), _from(folder, restoring.report)
        return replace(restoring, run=folder / restoring.run, output=output, report=report)
    pruning = from_plain(RunConfig, start.config)
    if not elsewhere:
        return pruning
    return replace(
        from_anywhere(pruning, folder),
        output=folder / onnx_of(pruning),
        report=_from(folder, pruning.report),
        log_dir=_from(folder, pruning.log_dir),
    )


def _from(folder: Path, path: Path | None) -> Path | None:
    return None if path is None else folder / path


def _here(config: RunConfig | RestoreConfig, run: Path) -> RunConfig | RestoreConfig:
    """The result goes beside the run's folder, wherever that was moved to.

    Raises:
        ConfigError: the folder was given another kind of name.
    """
    onnx = onnx_of(config) if isinstance(config, RunConfig) else restored_onnx(config)
    folder = run.resolve()
    if onnx.with_suffix(RUN_SUFFIX).resolve() == folder:
        return config
    if folder.suffix != RUN_SUFFIX:
        raise ConfigError(
            f"run {run}: the folder's name must end in {RUN_SUFFIX}, got {folder.name}",
            f"it was {onnx.with_suffix(RUN_SUFFIX)}: give it that name again",
        )
    return replace(config, output=folder.with_suffix(SUFFIX))


def _nothing(run: Path) -> ConfigError:
    if is_run(run):
        return ConfigError(
            f"run {run}: has ended, there is nothing to go on with",
            f"see what came out: prunecli inspect {run}",
        )
    if not run.is_dir():
        return ConfigError(
            f"run {run}: the folder that an unfinished run left is needed, got no such folder",
            "give the folder beside the ONNX file: model.run for model.onnx",
        )
    return ConfigError(
        f"run {run}: ended before there was anything to go on with, got no {STATE_FOLDER}/"
        f"{START_FILE}",
        "start it again: prunecli prune",
    )
