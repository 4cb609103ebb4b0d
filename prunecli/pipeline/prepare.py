"""First part of a run: load the checkpoint, open the data, capture the network.

Stage: pipeline. In: the configuration. Out: `Prepared`. Removes nothing.
"""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor
from torch.export import ExportedProgram

from prunecli.config import InputSpec, ModelConfig, RunConfig
from prunecli.data import DataSet, check_outputs, open_data
from prunecli.errors import ConfigError
from prunecli.graph.capture import (
    Captured,
    capture,
    capture_program,
    fitting_example,
    output_shape,
)
from prunecli.graph.inputs import Example, of_shape, of_specs
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
        ledger.remark(*captured.notes)
        if data is not None:
            _check_one_input(captured)
            check_outputs(data, output_shape(captured))
            if len(captured.outputs) > 1:
                ledger.remark(
                    f"of {len(captured.outputs)} outputs, {captured.outputs[0]} is trained and "
                    "scored with --data; all are exported"
                )
    return Prepared(loaded.sha256, captured, data)


def _sample_shape(config: RunConfig, loaded: LoadedModel) -> tuple[int, ...] | None:
    """Shape of one example where the program or the user says it.

    Raises:
        ConfigError: both do, and differ.
    """
    if config.model.inputs and loaded.program is not None:
        raise ConfigError(
            "--input: an exported program has its own inputs, got --input for one",
            "drop --input, or export the program again",
        )
    asked = config.model.input_shape or _fixed_shape(config.model.inputs)
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
        return capture_program(loaded.program)
    assert loaded.module is not None
    try:
        example, answer = fitting_example(loaded.module, _examples(config.model, loaded, data))
    except RuntimeError as error:  # what the CPU's allocator raises
        raise ConfigError(
            "--input-shape: an input must fit the memory, got "
            f"{config.model.input_shape or config.model.inputs}",
            "give the shape that the network was trained on",
        ) from error
    return capture(loaded.module, example, answer)


def _examples(config: ModelConfig, loaded: LoadedModel, data: DataSet | None) -> Iterator[Example]:
    """What to try the network with, as far as the user or the checkpoint says it."""
    assert loaded.module is not None
    parameters = inspect.signature(loaded.module.forward).parameters.values()
    if config.inputs:
        in_order = all(item.kind is inspect.Parameter.VAR_POSITIONAL for item in parameters)
        return of_specs(config.inputs, by_position=in_order)
    if config.input_shape is not None:
        return of_shape(config.input_shape)
    if data is not None:
        return of_shape((1, *data.preprocess(data.train.inputs[:1]).shape[1:]))
    if loaded.inputs:
        return of_specs(loaded.inputs)
    needed = [item.name for item in parameters if item.default is inspect.Parameter.empty]
    raise ConfigError(
        "model: the shape of its input is not known",
        "give --input-shape 1,3,224,224 (batch, channels, height, width), or prune with --data; "
        f"for anything else say --input '{(needed or ['x'])[0]}=int64[batch,seq]' for each input",
    )


def _fixed_shape(specs: tuple[InputSpec, ...]) -> tuple[int, ...] | None:
    """What a single `--input` says about the shape of an example."""
    if len(specs) != 1 or any(axis.extent is None for axis in specs[0].axes[1:]):
        return None
    return (1, *(axis.extent or 1 for axis in specs[0].axes[1:]))


def can_train(captured: Captured) -> bool:
    """Whether the data sets that can be read fit the network's inputs."""
    return len(captured.inputs) == 1 and captured.inputs[0].is_floating_point()


def _check_one_input(captured: Captured) -> None:
    if not can_train(captured):
        kinds = ", ".join(str(item.dtype).removeprefix("torch.") for item in captured.inputs)
        raise ConfigError(
            f"--data: networks with one input of numbers can be trained here, got {kinds}",
            "leave out --data to prune without training, and train the written .pt2 program",
        )


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
