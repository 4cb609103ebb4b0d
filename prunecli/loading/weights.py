"""Finding weights in what a checkpoint holds.

Stage: loading. In: the unpickled object. Out: candidate state dicts, or a pickled module, with
where they were found. Never judges whether they fit a model.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from prunecli.errors import CheckpointError

DEPTH = 3
"""How many dictionaries deep weights are looked for."""

USUAL = (
    *("", "state_dict", "model_state_dict", "model", "net", "network", "module"),
    *("weights", "params"),
)
"""Usual places, most trusted first; places not listed come after these."""

AVERAGED = frozenset({"ema", "averaged", "swa", "shadow", "teacher"})
"""Words in a key that mark a running average of the weights."""


@dataclass(frozen=True)
class Candidate:
    """One state dict inside a checkpoint.

    Attributes:
        where: keys that lead to it, joined by dots; empty for the checkpoint itself.
        tensors: the state dict; its `_metadata` (module versions) survives where it has one.
        averaged: whether its place names a running average.
    """

    where: str
    tensors: Mapping[str, torch.Tensor]
    averaged: bool

    @property
    def place(self) -> str:
        """For messages."""
        return f'"{self.where}"' if self.where else "the top level"


@dataclass(frozen=True)
class FoundModule:
    """One pickled module inside a checkpoint."""

    where: str
    module: nn.Module
    averaged: bool


def find_candidates(path: Path, held: object) -> tuple[Candidate, ...]:
    """Every state dict in `held`, the most usual place first.

    Pickled modules count with their state dicts.

    Raises:
        CheckpointError: there is none; says what there is.
    """
    found: list[Candidate] = []
    for where, value in _walk(held, ""):
        state = value.state_dict() if isinstance(value, nn.Module) else value
        if isinstance(state, Mapping) and _has_tensors(state):
            found.append(Candidate(where, state, _is_averaged(where)))
    if not found:
        raise _nothing(path, held)
    return tuple(sorted(found, key=lambda candidate: _order(candidate.where)))


def find_module(held: object) -> tuple[FoundModule, ...]:
    """Every pickled module in `held`, plain weights before running averages."""
    found = [
        FoundModule(where, value, _is_averaged(where))
        for where, value in _walk(held, "")
        if isinstance(value, nn.Module)
    ]
    return tuple(sorted(found, key=lambda item: (item.averaged, _order(item.where))))


def _walk(value: object, where: str) -> Iterator[tuple[str, object]]:
    yield where, value
    if not isinstance(value, Mapping) or _is_optimizer(value):
        return
    if where.count(".") + bool(where) >= DEPTH:
        return
    for key, inner in value.items():
        if isinstance(key, str) and isinstance(inner, Mapping | nn.Module):
            yield from _walk(inner, f"{where}.{key}" if where else key)


def _is_optimizer(value: Mapping[object, object]) -> bool:
    return "param_groups" in value and "state" in value


def _has_tensors(value: Mapping[object, object]) -> bool:
    keyed = all(isinstance(key, str) for key in value)
    return keyed and any(isinstance(item, torch.Tensor) for item in value.values())


def _is_averaged(where: str) -> bool:
    words = where.lower().replace(".", "_").split("_")
    return any(word in AVERAGED for word in words)


def _order(where: str) -> tuple[int, int]:
    last = where.rpartition(".")[2]
    rank = USUAL.index(last) if last in USUAL else len(USUAL)
    return (where.count("."), rank)


def _nothing(path: Path, held: object) -> CheckpointError:
    hint = "save the weights with torch.save(model.state_dict(), ...)"
    if not isinstance(held, Mapping):
        got = f"a {type(held).__name__}"
        return CheckpointError(f"checkpoint {path}: must hold a state dict, got {got}", hint)
    if _is_optimizer(held) or any(
        isinstance(value, Mapping) and _is_optimizer(value) for value in held.values()
    ):
        return CheckpointError(
            f"checkpoint {path}: must hold the model's weights, got only an optimizer's state", hint
        )
    if not held:
        return CheckpointError(f"checkpoint {path}: must hold weights, got an empty dict", hint)
    keys = [str(key) for key in held]
    shown = ", ".join(keys[:5]) + (", ..." if len(keys) > 5 else "")
    return CheckpointError(
        f"checkpoint {path}: must hold weights, got a dict without tensors (keys: {shown})", hint
    )
