"""The flags about what comes in, read into a `ModelConfig` and a `DataConfig`.

Stage: wishes. In: the texts of flags. Out: records. Opens no file.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeVar

from prunecli.config import DataConfig, ModelConfig
from prunecli.errors import ConfigError
from prunecli.parsing import (
    parse_floats,
    parse_inputs,
    parse_model_args,
    parse_names,
    parse_shape,
    parse_task,
)

Value = TypeVar("Value")


@dataclass(frozen=True)
class DataFlags:
    """Flags as they were given; `None` where they were not."""

    data: Path | None = None
    mean: str | None = None
    std: str | None = None
    image_size: int | None = None
    max_samples: int | None = None
    task: str | None = None
    target_column: str | None = None
    input_column: str | None = None
    max_length: int | None = None
    processor: Path | None = None
    seed: int = 0


def read_model(
    checkpoint: Path,
    factory: str | None,
    arguments: list[str] | None,
    input_shape: str | None,
    inputs: list[str] | None,
    allow_pickle: bool,
) -> ModelConfig:
    """Where the network comes from.

    Raises:
        ConfigError: a flag that is not understood.
    """
    return ModelConfig(
        checkpoint,
        factory,
        parse_model_args(tuple(arguments or ())),
        parse_shape(input_shape) if input_shape is not None else None,
        allow_pickle,
        parse_inputs(tuple(inputs or ())),
    )


def read_data(flags: DataFlags) -> DataConfig | None:
    """What the flags say about data.

    Raises:
        ConfigError: a flag is not understood, or says something about data that there are not.
    """
    if flags.data is None:
        for item in fields(flags):
            if item.name != "seed" and getattr(flags, item.name) is not None:
                flag = f"--{item.name.replace('_', '-')}"
                raise ConfigError(f"{flag}: needs --data", "give --data PATH, or drop the flag")
        return None
    return DataConfig(
        flags.data,
        _read(flags.mean, lambda text: parse_floats("--mean", text)),
        _read(flags.std, lambda text: parse_floats("--std", text)),
        flags.image_size,
        flags.max_samples,
        flags.seed,
        _read(flags.task, parse_task),
        _read(flags.target_column, lambda text: parse_names("--target-column", text)) or (),
        _read(flags.input_column, lambda text: parse_names("--input-column", text)) or (),
        flags.max_length,
        flags.processor,
    )


def _read(text: str | None, read: Callable[[str], Value]) -> Value | None:
    return None if text is None else read(text)
