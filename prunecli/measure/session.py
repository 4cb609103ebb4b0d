"""An ONNX file as something that answers numpy batches, in onnxruntime.

Stage: measure. In: the path of an `.onnx` file, float batches. Out: the network's first output.
Never computes a network in torch, never writes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from prunecli.errors import ModelError
from prunecli.runtime import RUNTIME_ERRORS, first_line

Array = NDArray[Any]

_LOG_ERRORS_ONLY = 3


class Executor(Protocol):
    """A loaded network. Tests put a fake one here."""

    @property
    def batch_size(self) -> int | None:
        """The only batch size that the network accepts; `None` when any will do."""

    def run(self, batch: Array) -> Array:
        """The network's first output for `batch`, examples first."""


@dataclass(frozen=True)
class InputSpec:
    """What a network's input must look like.

    Attributes:
        name: the input's name in the file.
        shape: one entry per axis, batch first; `None` where any extent is accepted.
    """

    name: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class OnnxSession:
    """An open onnxruntime session of a network with one input."""

    path: Path
    runtime: onnxruntime.InferenceSession
    input: InputSpec

    @property
    def batch_size(self) -> int | None:
        """The batch size written into the file; `None` when it is dynamic."""
        return self.input.shape[0] if self.input.shape else None

    def run(self, batch: Array) -> Array:
        """The first output for `batch`.

        Raises:
            ModelError: onnxruntime rejects the batch or fails while computing.
        """
        try:
            outputs = self.runtime.run(None, {self.input.name: batch})
        except RUNTIME_ERRORS as error:
            raise ModelError(
                f"{self.path}: must run on input of shape {tuple(batch.shape)}, "
                f"got: {first_line(error)}",
                "check --input-shape",
            ) from error
        return np.asarray(outputs[0])


def open_session(path: Path, threads: int | None) -> OnnxSession:
    """Load `path` for the CPU.

    Args:
        threads: intra-op threads; `None` takes onnxruntime's default, all cores.

    Raises:
        ModelError: the file cannot be loaded, or has not exactly one input.
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
    inputs = runtime.get_inputs()
    if len(inputs) != 1:
        names = ", ".join(found.name for found in inputs) or "none"
        raise ModelError(f"{path}: exactly one input is needed, got {len(inputs)} ({names})")
    shape = tuple(extent if isinstance(extent, int) else None for extent in inputs[0].shape)
    return OnnxSession(path, runtime, InputSpec(inputs[0].name, shape))


def fit_batch(examples: Array, size: int) -> Array:
    """Exactly `size` examples: the first ones, repeated from the start when there are too few.

    Args:
        examples: (N, ...), N at least 1.
    """
    if len(examples) == size:
        return examples
    return np.ascontiguousarray(examples[np.arange(size) % len(examples)])


def predict(executor: Executor, examples: Array) -> Array:
    """Outputs for any number of examples, also from a network that fixes its batch.

    Args:
        examples: (N, ...), N at least 1.

    Returns:
        (N, ...): a fixed batch's padding is dropped again.
    """
    size = executor.batch_size
    if size is None:
        return executor.run(examples)
    outputs = []
    for start in range(0, len(examples), size):
        chunk = examples[start : start + size]
        outputs.append(executor.run(fit_batch(chunk, size))[: len(chunk)])
    return np.concatenate(outputs)
