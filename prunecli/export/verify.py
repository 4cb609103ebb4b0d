"""Verification: the ONNX file computes what the network computes, and really is smaller.

Stage: export. In: a file and the network it was made from. Out: what was compared, or an error.
A file that fails never gets its final name.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor, fx

from prunecli.errors import VerificationError, first_line
from prunecli.export.onnx_file import Exportable, initializer_elements, weights_in
from prunecli.graph.capture import Captured
from prunecli.runtime import RUNTIME_ERRORS

BATCHES = (1, 3)
"""Two batch sizes, neither the one used during capture."""

SHRINK_SHARE = 0.9
"""Of the parameters that the plan removes, so many must be missing from the file. Not all: the
exporter folds batch norms into convolutions, in the original as well."""


@dataclass(frozen=True)
class Verified:
    """What was compared.

    Attributes:
        difference: largest absolute difference over the larger of 1 and the largest output.
        batches: batch sizes compared.
        unvaried: free axes that were compared at one extent only, since the network takes no
            shorter one.
    """

    difference: float
    batches: tuple[int, ...]
    unvaried: tuple[str, ...] = ()


def verify_outputs(
    path: Path, network: fx.GraphModule, exportable: Exportable, atol: float, seed: int
) -> Verified:
    """Compare onnxruntime with PyTorch on random inputs at two batch sizes, the second time
    with other free axes shorter than during capture.

    Raises:
        VerificationError: the file does not load, or the outputs differ by more than `atol`.
    """
    session = _open(path)
    names = [item.name for item in session.get_inputs()]
    origin = exportable.origin
    batches = BATCHES if origin.batch_name is not None else (origin.batch,)
    free = _shorter(origin)
    runs = batches if len(batches) > 1 or not free else batches * 2
    worst, unvaried = 0.0, tuple(free)
    generator = torch.Generator().manual_seed(seed)
    for batch, shorter in zip(runs, (*({} for _ in runs[1:]), free), strict=True):
        inputs, expected, fits = _run(network, origin, batch, shorter, generator)
        unvaried = () if shorter and fits else unvaried
        feed = {name: item.numpy() for name, item in zip(names, inputs, strict=True)}
        with _refusals(f"run the file on a batch of {batch}"):
            found = session.run(None, feed)
        worst = max(worst, *(_apart(one, two) for one, two in zip(expected, found, strict=True)))
    if not worst <= atol:
        raise VerificationError(
            f"export: onnxruntime and PyTorch differ by {worst:.1e}, allowed are {atol:.1e}",
            "no file was written; if the difference is acceptable to you, raise --atol",
        )
    return Verified(worst, batches, unvaried)


def verify_shrunk(original: Path, pruned: Path, removed_params: float) -> tuple[int, int]:
    """Check that the weights in the file shrank as planned; returns elements before and after.

    Raises:
        VerificationError: the file holds more than the plan says.
    """
    before, after = initializer_elements(original), initializer_elements(pruned)
    if before - after < SHRINK_SHARE * removed_params:
        raise VerificationError(
            f"export: the file holds {after} weights, the original's {before}; the plan removes "
            f"{removed_params:.0f} parameters",
            "this is a bug in prunecli: please report it with the model and the plan",
        )
    return before, after


@dataclass(frozen=True)
class MaskedFile:
    """Masks, and the file that was made of what they leave.

    Attributes:
        zeros: how many weights the masks take; in the network all of them are zero.
        rewritten: masked weights that the file does not hold as they are, because they were
            joined or multiplied with others (an LSTM's projection): no zero of theirs was looked
            up. Biases too, which batch norm becomes part of.
    """

    zeros: int
    rewritten: tuple[str, ...] = ()


def verify_masked(path: Path, network: fx.GraphModule, masks: Mapping[str, Tensor]) -> MaskedFile:
    """Check that what the masks take is zero, to the last weight: in the network, and in the file.

    Weights are found in the file by their names, or by having the same values in another order.

    Args:
        masks: by the names of the network's parameters; bool, of their shape, True stays.

    Raises:
        VerificationError: a masked weight is not zero.
    """
    weights = weights_in(path)
    zeros, lost = 0, []
    for name, mask in masks.items():
        parameter, gone = network.get_parameter(name).detach().cpu().numpy(), ~mask.cpu().numpy()
        _check_zeros("the network", name, parameter, gone)
        zeros += int(gone.sum())
        found = weights.get(name)
        if mask.dim() > 1 and found is not None and found.shape == gone.shape:
            _check_zeros("the file", name, found, gone)
        elif not _holds(weights.values(), parameter):
            lost.append(name)
    return MaskedFile(zeros, tuple(lost))


def _holds(weights: Iterable[np.ndarray], parameter: np.ndarray) -> bool:
    """Whether one of `weights`, or a direction of a recurrent one, has these values in any
    order."""
    wanted = np.sort(parameter, axis=None)
    parts = (part for item in weights for part in (item, *(item if item.ndim == 3 else ())))
    return any(
        part.size == wanted.size and np.array_equal(np.sort(part, axis=None), wanted)
        for part in parts
    )


def _check_zeros(where: str, name: str, weight: np.ndarray, gone: np.ndarray) -> None:
    wrong = int((weight[gone] != 0).sum())
    if wrong:
        raise VerificationError(
            f"export: masked weights must be zero, got {wrong} of {name} that are not, in {where}",
            "this is a bug in prunecli: please report it with the model and the masks",
        )


def _open(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    with _refusals("load the file"):
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@contextmanager
def _refusals(what: str) -> Iterator[None]:
    try:
        yield
    except RUNTIME_ERRORS as error:
        raise VerificationError(
            f"export: onnxruntime cannot {what}: {first_line(error)}",
            "no file was written; report the operator that is named",
        ) from error


def _shorter(origin: Captured) -> dict[str, int]:
    """Free axes besides the batch, with extents below those during capture."""
    return {
        name: max(1, 3 * extent // 4)
        for item, own in zip(origin.inputs, origin.axes, strict=True)
        for name, extent in zip(own, item.shape, strict=True)
        if name is not None and name != origin.batch_name
    }


def _run(
    network: fx.GraphModule,
    origin: Captured,
    batch: int,
    shorter: dict[str, int],
    generator: torch.Generator,
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], bool]:
    """Random inputs, what the network makes of them, and whether it can do with `shorter`."""
    extents = {origin.batch_name: batch} if origin.batch_name is not None else {}
    if shorter:
        inputs = origin.draw({**extents, **shorter}, generator)
        # A window, a stride or a length that does not fit.
        with suppress(RuntimeError, IndexError):
            return inputs, _outputs(network, inputs), True
    inputs = origin.draw(extents, generator)
    return inputs, _outputs(network, inputs), not shorter


def _outputs(network: fx.GraphModule, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    with torch.no_grad():
        found = network(*(item.clone() for item in inputs))
    return found if isinstance(found, tuple) else (found,)


def _apart(expected: Tensor, found: np.ndarray) -> float:
    if tuple(expected.shape) != tuple(found.shape):
        return float("inf")
    want = expected.detach().numpy()
    if want.size == 0:
        return 0.0
    apart = float(np.abs(want.astype(np.float64) - found).max())
    if apart != apart:
        return float("inf")
    return apart / max(1.0, float(np.abs(want).max()))
