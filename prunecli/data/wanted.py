"""What a reader has to know besides the path: what the user says, and what the network takes.

Stage: data. In: nothing; plain records. Never opens a file.
"""

from dataclasses import dataclass
from pathlib import Path

from prunecli.config import DataConfig, TaskConfig
from prunecli.errors import ConfigError

IDS = "input_ids"
"""What networks of the Hugging Face library call the numbers of their tokens."""


@dataclass(frozen=True)
class Processor:
    """The folder with the network's tokenizer or feature extractor, and what is known beside it.

    Attributes:
        longest: positions that the network has; `None` where that is not known.
        classes: names of its outputs, in order, where it has any.
        optional: inputs that it takes but does not need.
    """

    folder: Path
    longest: int | None = None
    classes: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wanted:
    """What examples and targets are wanted.

    Attributes:
        sample_shape: shape of one example without the batch, where the model has one input and it
            or the user says it.
        inputs: names of the network's inputs, where they are known.
    """

    config: DataConfig
    sample_shape: tuple[int, ...] | None = None
    inputs: tuple[str, ...] = ()
    processor: Processor | None = None

    @property
    def task(self) -> TaskConfig | None:
        """What the targets are."""
        return self.config.task

    @property
    def labelled(self) -> bool:
        """Whether targets are needed."""
        return self.task is None or self.task.labelled

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the network's outputs, where it has any."""
        return () if self.processor is None else self.processor.classes

    @property
    def takes_tokens(self) -> bool:
        """Whether the network, by the names of its inputs, or the user, by naming a processor,
        asks for tokens."""
        own = any(name.rpartition(".")[2] == IDS for name in self.inputs)
        return own or self.config.processor is not None


def refuse_idle(config: DataConfig, what: str, *flags: str) -> None:
    """Refuse flags that have no effect on this kind of data.

    Args:
        what: the kind, in words.

    Raises:
        ConfigError: one of them was given.
    """
    given = {
        "--target-column": config.target_columns,
        "--input-column": config.input_columns,
        "--max-length": config.max_length,
        "--processor": config.processor,
        "--image-size": config.image_size,
    }
    for flag in flags:
        if given[flag]:
            raise ConfigError(f"{flag}: has no effect on {what}", f"leave {flag} out")
