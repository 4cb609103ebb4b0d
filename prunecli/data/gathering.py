"""All inputs of a part together: each read on its own, the same examples of each.

Stage: data. In: a part and the rows of each split. Out: arrays for each split, and how a batch of
them is prepared. Never decides who gets which row.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from prunecli.config import DataConfig
from prunecli.data.preparing import make_preprocess
from prunecli.data.reading import Read, may_be_image, read_input
from prunecli.data.records import Preprocess
from prunecli.data.source import AnyArray, Part, Rows
from prunecli.errors import DataError
from prunecli.progress import Reporter


@dataclass(frozen=True)
class Gathered:
    """What came of reading a part.

    Attributes:
        groups: for each split its inputs and the rows that they are.
        inputs: how each input was read.
    """

    groups: tuple[tuple[tuple[AnyArray, ...], Rows], ...]
    inputs: tuple[Read, ...]

    @property
    def skipped(self) -> tuple[str, ...]:
        """Broken examples of any input."""
        return tuple(line for read in self.inputs for line in read.skipped)

    @property
    def notes(self) -> tuple[str, ...]:
        """How inputs were brought into the model's shape."""
        return tuple(read.note for read in self.inputs if read.note)


def read_part(
    part: Part,
    groups: Sequence[Rows],
    config: DataConfig,
    sample_shape: tuple[int, ...] | None,
    reporter: Reporter,
    first: Gathered | None = None,
) -> Gathered:
    """Read the rows of all groups; examples that are broken in one input are left out of all.

    Args:
        sample_shape: what the model takes, without the batch, where it has one input and that is
            known.
        first: the training part's, so that all parts get the same shape.

    Raises:
        DataError: see `read_input`.
    """
    frames = [None] * len(part.examples) if first is None else [r.frame for r in first.inputs]
    bare = replace(config, mean=None, std=None)
    several = len(part.examples) > 1
    reads = tuple(
        read_input(
            part.where,
            examples,
            groups,
            bare if several and not may_be_image(examples) else config,
            sample_shape,
            reporter,
            frame,
        )
        for examples, frame in zip(part.examples, frames, strict=True)
    )
    together = []
    for place in range(len(groups)):
        own = [read.groups[place] for read in reads]
        rows = own[0][1]
        for _, others in own[1:]:
            rows = np.intersect1d(rows, others, assume_unique=True)
        together.append((tuple(_only(values, had, rows) for values, had in own), rows))
    return Gathered(tuple(together), reads)


def _only(values: AnyArray, had: Rows, rows: Rows) -> AnyArray:
    """The examples of `rows`, of those of the rows that there are."""
    return values if len(had) == len(rows) else values[np.isin(had, rows)]


def preprocess_for(config: DataConfig, reads: Sequence[Gathered]) -> tuple[Preprocess, ...]:
    """What happens to each input. `--mean` and `--std` are for images where there are any, else
    for the only input.

    Raises:
        DataError: they were given and it is not clear for which input.
    """
    first = reads[0].inputs
    images = any(read.image for read in first)
    if (config.mean or config.std) and not images and len(first) > 1:
        raise DataError(
            f"--mean, --std: are for images or for a single input, got {len(first)} inputs",
            "scale the numbers before they are written",
        )
    return tuple(
        make_preprocess(
            config,
            read.image,
            read.stored_shape,
            any(part.inputs[place].resized for part in reads),
            read.example_shape,
            scaled=read.image or len(first) == 1,
        )
        for place, read in enumerate(first)
    )
