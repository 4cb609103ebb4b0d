"""First part of a run: load the checkpoint, open the data, capture the network.

Stage: pipeline. In: the configuration. Out: `Prepared`. Removes nothing.
"""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.export import ExportedProgram

from prunecli.config import RunConfig
from prunecli.data import DataSet, check_outputs, open_data
from prunecli.errors import ConfigError, ModelError
from prunecli.graph.capture import (
    Captured,
    capture,
    capture_program,
    fitting_inputs,
    output_shape,
)
from prunecli.loading import LoadedModel, load_model
from prunecli.pipeline.ledger import Ledger
from prunecli.progress import Reporter
from prunecli.report import record


@dataclass(frozen=True)
class Prepared:
    """What every later stage starts from.

    Attributes:
        sha256: of the checkpoint.
        data: `None` without `--data`.
    """

    sha256: str
    captured: Captured
    data: DataSet | None


def prepare(config: RunConfig, ledger: Ledger, reporter: Reporter) -> Prepared:
    """Load, read, capture.

    Raises:
        PrunecliError: see the stages.
    """
    with ledger.stage("load"), reporter.step(f"loading {config.model.checkpoint.name}"):
        loaded = load_model(config.model)
        sample_shape = _sample_shape(config, loaded)
        ledger.note(
            checkpoint=record.Checkpoint(str(config.model.checkpoint), loaded.sha256, loaded.notes)
        )
    data = None
    if config.data is not None:
        with ledger.stage("data"):
            data = open_data(config.data, sample_shape=sample_shape, reporter=reporter)
            ledger.note(data=_data_record(config, data))
    with ledger.stage("capture"), reporter.step("capturing the network"):
        captured = _capture(config, loaded, data)
        if data is not None:
            check_outputs(data, output_shape(captured))
        ledger.remark(*captured.notes)
    return Prepared(loaded.sha256, captured, data)


def _sample_shape(config: RunConfig, loaded: LoadedModel) -> tuple[int, ...] | None:
    """Shape of one example where the program or the user says it.

    Raises:
        ConfigError: both do, and differ.
    """
    asked = config.model.input_shape
    own = None if loaded.program is None else _program_shape(loaded.program)
    if asked is not None and own is not None and asked[1:] != own[1:]:
        raise ConfigError(
            f"--input-shape: the program was exported for {own}, got {asked}",
            "drop --input-shape, or export the program again for that shape",
        )
    shape = asked or own
    return None if shape is None else shape[1:]


def _program_shape(program: ExportedProgram) -> tuple[int, ...] | None:
    positional = (program.example_inputs or ((), {}))[0]
    first = positional[0] if positional else None
    return tuple(first.shape) if isinstance(first, Tensor) else None


def _capture(config: RunConfig, loaded: LoadedModel, data: DataSet | None) -> Captured:
    if loaded.program is not None:
        return _one_input(capture_program(loaded.program))
    assert loaded.module is not None
    if config.model.input_shape is not None:
        shape = config.model.input_shape
    elif data is not None:
        shape = (1, *data.preprocess(data.train.inputs[:1]).shape[1:])
    else:
        raise ConfigError(
            "model: the shape of its input is not known",
            "give --input-shape 1,3,224,224 (batch, channels, height, width), or prune with --data",
        )
    return capture(loaded.module, _inputs(loaded.module, shape))


def _inputs(module: nn.Module, shape: tuple[int, ...]) -> tuple[Tensor, ...]:
    try:
        return fitting_inputs(module, shape)
    except RuntimeError as error:  # what the CPU's allocator raises
        raise ConfigError(
            f"--input-shape: an input must fit the memory, got {shape}",
            "give the shape that the network was trained on",
        ) from error


def _one_input(captured: Captured) -> Captured:
    if len(captured.inputs) != 1:
        raise ModelError(
            f"program: exactly one input tensor is needed, got {len(captured.inputs)}",
            "export a wrapper that takes one tensor",
        )
    return captured


def _data_record(config: RunConfig, data: DataSet) -> record.Data:
    assert config.data is not None
    return record.Data(
        str(config.data.path),
        data.task.value,
        data.preprocess.in_words(),
        tuple(
            record.Split(split.name, len(split))
            for split in (data.train, data.choose, data.validation)
        ),
        len(data.skipped),
        data.notes,
    )
