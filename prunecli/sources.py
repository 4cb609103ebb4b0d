"""The flags about what comes in, read into a `ModelConfig` and a `DataConfig`.

Stage: wishes. In: the texts of flags. Out: records. Opens no file.
"""

from pathlib import Path

from prunecli.config import DataConfig, ModelConfig
from prunecli.errors import ConfigError
from prunecli.parsing import (
    parse_floats,
    parse_inputs,
    parse_model_args,
    parse_shape,
    parse_task,
)


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


def read_data(
    path: Path | None,
    mean: str | None,
    std: str | None,
    image_size: int | None,
    max_samples: int | None,
    seed: int,
    task: str | None,
) -> DataConfig | None:
    """Where examples come from, if there are any.

    Raises:
        ConfigError: a flag that is not understood, or one about data in a run without.
    """
    if path is None:
        given = {
            "--mean": mean,
            "--std": std,
            "--image-size": image_size,
            "--max-samples": max_samples,
            "--task": task,
        }
        used = [flag for flag, value in given.items() if value is not None]
        if used:
            raise ConfigError(f"{used[0]}: needs --data", "give --data PATH, or drop the flag")
        return None
    return DataConfig(
        path,
        parse_floats("--mean", mean) if mean is not None else None,
        parse_floats("--std", std) if std is not None else None,
        image_size,
        max_samples,
        seed,
        parse_task(task) if task is not None else None,
    )
