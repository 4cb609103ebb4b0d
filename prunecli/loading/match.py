"""Fitting a state dict to a module: which one, under which prefix, key by key.

Stage: loading. In: candidate state dicts and a module. Out: the module with the weights in it and
notes on what was done. Never guesses: keys and shapes must match, but for counters that carry
no weights.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from prunecli.errors import CheckpointError
from prunecli.loading.factory import Parameters
from prunecli.loading.finite import check_finite
from prunecli.loading.mismatch import Difference, explain
from prunecli.loading.weights import Candidate

PREFIXES = ("module.", "_orig_mod.", "model.")
"""Put before every key by DataParallel and averaging, torch.compile, and Lightning."""

MOST_PREFIXES = 4
"""How many of them may be stacked."""

MAY_MISS = ("num_batches_tracked", "_extra_state")
"""Endings of keys that older checkpoints lack and that evaluation does not read."""

MAY_EXCEED = ("n_averaged", "total_ops", "total_params")
"""Endings of keys that averaging and profilers leave behind."""

Shape = tuple[int, ...] | None
"""`None`: not known before the first batch (lazy modules)."""


@dataclass(frozen=True)
class Wanted:
    """What a module asks for.

    Attributes:
        shapes: of every tensor, by key.
        twins: keys of tied weights, by each of their keys; one of them is enough.
    """

    shapes: Mapping[str, Shape]
    twins: Mapping[str, frozenset[str]]


@dataclass(frozen=True)
class Fit:
    """A state dict under one prefix, compared with a module."""

    candidate: Candidate
    prefix: str
    tensors: Mapping[str, torch.Tensor]
    difference: Difference


def load_into(
    path: Path,
    module: nn.Module,
    candidates: tuple[Candidate, ...],
    model_name: str,
    parameters: Parameters,
) -> tuple[str, ...]:
    """Copy the best fitting candidate into `module`.

    Args:
        path: the checkpoint, for messages.
        module: changed in place.
        candidates: not empty, the most usual place first.
        model_name: the factory, for messages.
        parameters: the factory's parameters, for hints.

    Returns:
        What was done, in words.

    Raises:
        CheckpointError: no candidate matches, or the weights are not finite.
    """
    wanted = _wanted(module)
    fits = [fit for candidate in candidates for fit in _fits(candidate, wanted)]
    # Stable: of equal fits the most usual place and the shortest prefix stay first.
    best = min(fits, key=lambda fit: (fit.difference.count, fit.candidate.averaged))
    if best.difference.count:
        message, hint = explain(best.difference, model_name, parameters)
        raise CheckpointError(f"checkpoint {path}: {message}", hint)
    used = {key: best.tensors[key] for key in wanted.shapes if key in best.tensors}
    _check_kinds(path, used, module)
    trained = {key for key, _ in module.named_parameters(remove_duplicate=False)}
    check_finite(
        path,
        {key: tensor for key, tensor in used.items() if key in trained},
        {key: tensor for key, tensor in used.items() if key not in trained},
    )
    _copy(path, module, best)
    return _notes(best, used, candidates)


def _check_kinds(path: Path, tensors: Mapping[str, torch.Tensor], module: nn.Module) -> None:
    """Refuse what does not stay the same when it is copied into the module."""
    own = module.state_dict()
    for key, tensor in tensors.items():
        lost = tensor.is_complex() and not own[key].is_complex()
        kind = tensor.dtype if tensor.layout is torch.strided else tensor.layout
        if lost or tensor.is_quantized or tensor.layout is not torch.strided:
            raise CheckpointError(
                f"checkpoint {path}: weights must be plain numbers, got {key} of "
                f"{str(kind).removeprefix('torch.')}",
                "save ordinary tensors of real numbers: .dequantize() or .to_dense() first",
            )


def _copy(path: Path, module: nn.Module, fit: Fit) -> None:
    # On the meta device there is nothing to copy into.
    assign = any(tensor.is_meta for tensor in module.state_dict().values())
    try:
        module.load_state_dict(_with_versions(fit), strict=False, assign=assign)
    except RuntimeError as error:
        text = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"checkpoint {path}: the weights must fit the model, got {text}",
            "check that --model builds the architecture that was trained",
        ) from error


def _with_versions(fit: Fit) -> "OrderedDict[str, torch.Tensor]":
    """The tensors with the module versions that torch keeps beside them, prefix removed.

    Without them torch takes every module for one of an old version and converts its weights.
    """
    state = OrderedDict(fit.tensors)
    versions = getattr(fit.candidate.tensors, "_metadata", None)
    if isinstance(versions, Mapping):
        cut = {
            f"{name}.".removeprefix(fit.prefix).removesuffix("."): value
            for name, value in versions.items()
            if isinstance(name, str)
        }
        state._metadata = cut  # type: ignore[attr-defined]
    return state


def _wanted(module: nn.Module) -> Wanted:
    state = {
        key: value
        for key, value in module.state_dict(keep_vars=True).items()
        if isinstance(value, torch.Tensor)
    }
    same: dict[int, set[str]] = {}
    for key, value in state.items():
        same.setdefault(id(value), set()).add(key)
    return Wanted(
        {key: None if is_lazy(value) else tuple(value.shape) for key, value in state.items()},
        {key: frozenset(same[id(value)]) for key, value in state.items()},
    )


def _fits(candidate: Candidate, wanted: Wanted) -> Iterator[Fit]:
    start = {
        key: value for key, value in candidate.tensors.items() if isinstance(value, torch.Tensor)
    }
    open_variants = [("", start)]
    for _ in range(MOST_PREFIXES + 1):
        longer: list[tuple[str, dict[str, torch.Tensor]]] = []
        for prefix, tensors in open_variants:
            yield Fit(candidate, prefix, tensors, _compare(tensors, wanted))
            longer.extend(
                (prefix + part, shorter)
                for part in PREFIXES
                if (shorter := _without(tensors, part)) is not None
            )
        open_variants = longer


def _without(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor] | None:
    """Keys without `prefix`; those that lack it stay: a loss may have been saved beside it."""
    if not any(key.startswith(prefix) for key in tensors):
        return None
    shorter = {key.removeprefix(prefix): value for key, value in tensors.items()}
    return shorter if len(shorter) == len(tensors) else None


def _compare(tensors: Mapping[str, torch.Tensor], wanted: Wanted) -> Difference:
    shapes = wanted.shapes
    missing = [
        key
        for key in shapes
        if not key.endswith(MAY_MISS) and wanted.twins[key].isdisjoint(tensors)
    ]
    unexpected = [key for key in tensors if key not in shapes and not key.endswith(MAY_EXCEED)]
    reshaped = [
        (key, tuple(tensors[key].shape), shape)
        for key, shape in shapes.items()
        if shape is not None and key in tensors and tuple(tensors[key].shape) != shape
    ]
    return Difference(tuple(missing), tuple(unexpected), tuple(reshaped), len(shapes))


def _notes(
    fit: Fit, used: Mapping[str, torch.Tensor], candidates: tuple[Candidate, ...]
) -> tuple[str, ...]:
    notes = []
    if fit.candidate.where:
        notes.append(f'weights read from "{fit.candidate.where}"')
    if fit.prefix:
        notes.append(f'prefix "{fit.prefix}" removed')
    for other in candidates:
        if other is not fit.candidate:
            notes.append(f"{other.place} holds weights too, not used")
    kinds = {str(t.dtype).removeprefix("torch.") for t in used.values() if t.is_floating_point()}
    for kind in sorted(kinds - {"float32"}):
        notes.append(f"{kind} weights converted to float32")
    return tuple(notes)
