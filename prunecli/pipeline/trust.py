"""Whose code runs when a run goes on, or is taken back.

Stage: pipeline. In: a configuration out of a run's folder, and what the user says of it. Out: a
line that says what will run, or an error. Runs nothing.

A run's folder is as trusted as code: it names files of Python, and checkpoints to unpickle. What it
may not name alone is any function of any installed package (`os:system` is one): then code would
run that lies nowhere near, with arguments from the folder.
"""

from pathlib import Path

from prunecli.config import RunConfig
from prunecli.errors import ConfigError
from prunecli.loading.library import LIBRARIES
from prunecli.progress import Reporter


def check_code(
    folder: Path, config: RunConfig, model: str | None, task: str | None, reporter: Reporter
) -> None:
    """Say what code will run, before any does.

    Args:
        folder: the run's, which `config` comes from.
        model, task: `--model` and `--task` as the user gives them again.

    Raises:
        ConfigError: the folder names code that must be given again, or other code was given.
    """
    asked = None if config.data is None else config.data.task
    own = None if asked is None else asked.custom
    factory = config.model.factory
    _check_given(folder, "--model", factory, model)
    _check_given(folder, "--task", own, task)
    arguments = "".join(f" --model-arg {key}={text}" for key, text in config.model.args.items())
    runs = [f"--model {factory}{arguments}"] if factory else []
    runs += [f"--task {own}"] if own else []
    runs += [f"--allow-pickle {config.model.checkpoint}"] if config.model.allow_pickle else []
    if runs:
        reporter.say(f"runs the code of: {', '.join(runs)}")


def _check_given(folder: Path, flag: str, spec: str | None, given: str | None) -> None:
    if given is not None and (spec is None or _resolved(given) != _resolved(spec)):
        raise ConfigError(
            f"{flag}: must be what {folder} began with, {spec or 'none'}, got {given}",
            "leave it out, or prune again",
        )
    if spec is not None and given is None and not _may_be_named(spec):
        raise ConfigError(
            f"run {folder}: code of installed packages must be named by you, got {spec} from the "
            "folder",
            f"if this is what the run began with, say so: {flag} {spec}",
        )


def _may_be_named(spec: str) -> bool:
    where = spec.rpartition(":")[0]
    return where.endswith(".py") or where in LIBRARIES


def _resolved(spec: str) -> tuple[str, str]:
    """A file by its whole path, anything else as it is; and the name in it."""
    where, _, name = spec.rpartition(":")
    return str(Path(where).resolve()) if where.endswith(".py") else where, name
