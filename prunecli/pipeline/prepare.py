"""First part of a run: load the checkpoint, open the data, capture the network.

Stage: pipeline. In: the configuration. Out: `Prepared`. Removes nothing.
"""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.export import ExportedProgram

from prunecli.config import DataConfig, InputSpec, ModelConfig, RunConfig
from prunecli.data import DataSet, Processor, open_data
from prunecli.errors import ConfigError
from prunecli.graph.calling import POSITIONAL
from prunecli.graph.capture import (
    Captured,
    capture,
    capture_program,
    fitting_example,
)
from prunecli.graph.inputs import Example, of_shape, of_specs
from prunecli.loading import LoadedModel, load_model
from prunecli.loading.huggingface import told_by
from prunecli.pipeline.fitting import examples_from, fitted, note_outputs, specs_of
from prunecli.pipeline.ledger import Ledger
from prunecli.progress import Reporter
from prunecli.recovery.objective import check_objective
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
            data = open_data(
                config.data,
                sample_shape=sample_shape,
                reporter=reporter,
                inputs=_input_names(config.model, loaded),
                processor=_processor(config.data, loaded),
            )
            ledger.note(data=_data_record(config, data))
    with ledger.stage("capture"), reporter.step("capturing the network"):
        captured = _capture(config, loaded, data)
        ledger.remark(*captured.notes)
        if data is not None:
            assert config.data is not None
            data = fitted(data, captured, config.data.task)
            check_objective(data.task, config.train)
            ledger.note(data=_data_record(config, data))
            note = note_outputs(data.task, captured)
            ledger.remark(*([note] if note else []))
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
    leaves = torch.utils._pytree.tree_leaves(program.example_inputs or ((), {}))
    tensors = [item for item in leaves if isinstance(item, Tensor)]
    return tuple(tensors[0].shape) if len(tensors) == 1 else None


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
        optional = loaded.folder.optional if loaded.folder is not None else ()
        specs = specs_of(data, (*loaded.inputs, *optional))
        if specs:
            return of_specs(specs)
        return examples_from(data, tuple(item.name for item in parameters))
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


def _input_names(config: ModelConfig, loaded: LoadedModel) -> tuple[str, ...]:
    """Names of the network's inputs, as far as they are known before it is captured."""
    specs = config.inputs or loaded.inputs
    if specs:
        return tuple(spec.name for spec in specs)
    if loaded.program is not None:
        return tuple(str(name) for name in loaded.program.graph_signature.user_inputs)
    assert loaded.module is not None
    parameters = inspect.signature(loaded.module.forward).parameters.values()
    by_name = [item for item in parameters if item.kind in POSITIONAL]
    needed = [item.name for item in by_name if item.default is inspect.Parameter.empty]
    # What may be left out may be targets (`labels`), which networks with a loss of their own take.
    return tuple(needed)


def _processor(config: DataConfig, loaded: LoadedModel) -> Processor | None:
    """The tokenizer or feature extractor: where the user says, or beside the network.

    Raises:
        ConfigError: the user names no folder.
    """
    if config.processor is not None and not config.processor.is_dir():
        raise ConfigError(
            f"--processor: a folder that transformers saved is needed, got {config.processor}",
            "e.g. tokenizer.save_pretrained(folder)",
        )
    # Another folder knows the names of the outputs where the network has come without its own.
    folder = loaded.folder or (told_by(config.processor) if config.processor is not None else None)
    if folder is None:
        return None
    return Processor(
        config.processor or folder.path,
        folder.longest,
        folder.classes,
        tuple(spec.name for spec in folder.optional),
    )


def _data_record(config: RunConfig, data: DataSet) -> record.Data:
    assert config.data is not None
    return record.Data(
        str(config.data.path),
        data.task.name,
        data.preprocess_in_words(),
        tuple(
            record.Split(split.name, len(split))
            for split in (data.train, data.choose, data.validation)
        ),
        len(data.skipped),
        data.notes,
    )
