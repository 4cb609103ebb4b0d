"""An ONNX file as something that answers numpy batches, in onnxruntime.

Stage: measure. In: the path of an `.onnx` file, batches. Out: the network's outputs.
Never computes a network in torch, never writes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from prunecli.errors import ModelError, first_line
from prunecli.graph.inputs import batch_name
from prunecli.runtime import RUNTIME_ERRORS

Array = NDArray[Any]

_LOG_ERRORS_ONLY = 3


class Executor(Protocol):
    """A loaded network. Tests put a fake one here."""

    @property
    def batch_size(self) -> int | None:
        """The only batch size that the network accepts; `None` when any will do."""

    def fit(self, examples: Sequence[Array], size: int) -> tuple[Array, ...]:
        """One array for each input, with `size` examples where an input has a batch."""

    def run(self, batch: Sequence[Array]) -> tuple[Array, ...]:
        """The network's outputs, examples first; `batch` has one array for each input."""


@dataclass(frozen=True)
class RuntimeInput:
    """What one of a network's inputs must look like.

    Attributes:
        name: the input's name in the file.
        shape: one entry per axis, batch first; a name where any extent is accepted.
    """

    name: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class OnnxSession:
    """An open onnxruntime session."""

    path: Path
    runtime: onnxruntime.InferenceSession
    inputs: tuple[RuntimeInput, ...]

    @property
    def batch_axis(self) -> int | str | None:
        """The axis that counts examples: its name, or its only extent."""
        firsts = [item.shape[0] for item in self.inputs if item.shape]
        free = batch_name(axis for axis in firsts if isinstance(axis, str))
        return next(iter(firsts), None) if free is None else free

    @property
    def batch_size(self) -> int | None:
        """The batch size written into the file; `None` when it is dynamic."""
        return self.batch_axis if isinstance(self.batch_axis, int) else None

    def fit(self, examples: Sequence[Array], size: int) -> tuple[Array, ...]:
        """One array for each input, with `size` examples where an input has a batch."""
        return tuple(
            fit_batch(array, size) if item.shape and item.shape[0] == self.batch_axis else array
            for item, array in zip(self.inputs, examples, strict=True)
        )

    def run(self, batch: Sequence[Array]) -> tuple[Array, ...]:
        """The outputs for `batch`, one array for each input.

        Raises:
            ModelError: onnxruntime rejects the batch or fails while computing.
        """
        try:
            feed = {item.name: array for item, array in zip(self.inputs, batch, strict=True)}
            outputs = self.runtime.run(None, feed)
        except RUNTIME_ERRORS as error:
            shapes = ", ".join(str(tuple(array.shape)) for array in batch)
            raise ModelError(
                f"{self.path}: must run on input of shape {shapes}, got: {first_line(error)}",
                "check --input-shape",
            ) from error
        return tuple(map(np.asarray, outputs))


def open_session(path: Path, threads: int | None) -> OnnxSession:
    """Load `path` for the CPU.

    Args:
        threads: intra-op threads; `None` takes onnxruntime's default, all cores.

    Raises:
        ModelError: the file cannot be loaded.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = _LOG_ERRORS_ONLY
    # Worker threads spin for a while after a call; with several sessions open, one file's
    # would steal time from the next file's call.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        runtime = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    except RUNTIME_ERRORS as error:
        raise ModelError(f"{path}: onnxruntime must load it, got: {first_line(error)}") from error
    inputs = (
        RuntimeInput(
            found.name,
            # An axis without a name is free as well.
            tuple(axis if isinstance(axis, int | str) else "" for axis in found.shape),
        )
        for found in runtime.get_inputs()
    )
    return OnnxSession(path, runtime, tuple(inputs))


def fit_batch(examples: Array, size: int) -> Array:
    """Exactly `size` examples: the first ones, repeated from the start when there are too few.

    Args:
        examples: (N, ...), N at least 1.
    """
    if len(examples) == size:
        return examples
    return np.ascontiguousarray(examples[np.arange(size) % len(examples)])


def predict(executor: Executor, examples: Sequence[Array]) -> tuple[Array, ...]:
    """Outputs of a network for any number of examples, also where the network fixes its batch.

    Args:
        examples: one array (N, ...) for each input, N at least 1.

    Returns:
        One array (N, ...) for each output: a fixed batch's padding is dropped again. Of an output
        without examples (an auxiliary loss) what it was for the first of the network's batches.
    """
    size = executor.batch_size
    if size is None:
        return executor.run(examples)
    chunks = (
        [fit_batch(item[start : start + size], size) for item in examples]
        for start in range(0, len(examples[0]), size)
    )
    found = zip(*map(executor.run, chunks), strict=True)
    return tuple(_joined(items, size, len(examples[0])) for items in found)


def _joined(outputs: Sequence[Array], size: int, count: int) -> Array:
    """The first `count` examples of batches of `size`."""
    holds_examples = outputs[0].shape[:1] == (size,)
    return np.concatenate(outputs)[:count] if holds_examples else outputs[0]
