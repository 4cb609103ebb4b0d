"""Where a run writes: the files beside each other, checked before any work is done.

Stage: pipeline. In: the configuration. Out: `Outputs`. Never writes a result.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from prunecli.config import RunConfig
from prunecli.errors import ConfigError
from prunecli.files import check_writable, folders_for
from prunecli.pipeline.saved import RUN_FILE, STATE_FOLDER

SUFFIX = ".onnx"


@dataclass(frozen=True)
class Outputs:
    """The final names.

    Attributes:
        onnx: the network to ship.
        program: the same for PyTorch, trainable further.
        plan: what was kept, inside the run's folder.
        run: all that is needed to explain the run later, or to take a part of it back.
        report: everything that is known, as JSON.
    """

    onnx: Path
    program: Path
    plan: Path
    run: Path
    report: Path | None

    @property
    def state(self) -> Path:
        """Folder of what an unfinished run needs to go on; nothing of a finished one."""
        return self.run.parent / STATE_FOLDER

    def named(self) -> dict[str, Path]:
        """Kind -> path, in the order in which they are reported."""
        files = {"onnx": self.onnx, "pt2": self.program, "plan": self.plan, "run": self.run}
        return files if self.report is None else {**files, "report": self.report}


def onnx_of(config: RunConfig) -> Path:
    """The network to ship."""
    return config.output or Path(f"{config.model.checkpoint.stem}-pruned{SUFFIX}")


def choose_outputs(config: RunConfig) -> Outputs:
    """Names for everything that will be written.

    Raises:
        ConfigError: not an ONNX file's name, or a file that is needed or written already.
    """
    onnx = onnx_of(config)
    if onnx.suffix != SUFFIX and not onnx.is_dir():
        raise ConfigError(
            f"-o: an ONNX file is written, its name must end in {SUFFIX}, got {onnx}",
            f"-o {onnx.with_suffix(SUFFIX) if onnx.name else 'model' + SUFFIX}",
        )
    folder = onnx.with_suffix(".run")
    found = Outputs(
        onnx, onnx.with_suffix(".pt2"), folder / "plan.json", folder / RUN_FILE, config.report
    )
    _check_distinct(config, found)
    return found


def _check_distinct(config: RunConfig, outputs: Outputs) -> None:
    taken = {config.model.checkpoint.resolve(): "the checkpoint"}
    if config.data is not None:
        taken[config.data.path.resolve()] = "the data"
    for kind, path in outputs.named().items():
        other = taken.setdefault(path.resolve(), f"the {kind} file")
        if other != f"the {kind} file":
            flag = "--report" if kind == "report" else "-o"
            raise ConfigError(
                f"{flag}: the {kind} file must not overwrite {other}, got {path}",
                f"choose another name with {flag}",
            )


@contextmanager
def room_for(outputs: Outputs) -> Iterator[None]:
    """Folders for all outputs, which are known to be writable then.

    Nothing stays behind when the block fails, but a report, and what the run needs to go on.

    Raises:
        OutputError: a folder cannot be created or written.
    """
    files = list(outputs.named().values())
    with folders_for(files):
        for file in files:
            check_writable(file)
        yield
