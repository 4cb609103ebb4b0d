"""LSTM and GRU layers keep sequences of any length.

Stage: graph, while capturing and exporting. To learn what shape an LSTM returns, torch runs it in
Python step by step, which fixes the number of steps. While this is in force it is told the shapes.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._decomp import decomposition_table

_KEY = torch._C.DispatchKey.CompositeImplicitAutograd
"""Torch looks there while it captures, and in its table of decompositions while it exports."""


def _output(x: Tensor, state: Tensor, bidirectional: bool, batch_first: bool) -> Tensor:
    """All steps; laid out in memory as the layers do, steps first."""
    one, two = x.shape[:2]
    width = state.shape[-1] * (2 if bidirectional else 1)
    return x.new_empty((two, one, width) if batch_first else (one, two, width)).transpose(
        0, 1 if batch_first else 0
    )


def _lstm(
    x: Tensor, states: list[Tensor], params: Any, biases: bool, layers: int, dropout: float,
    train: bool, bidirectional: bool, batch_first: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    last = (torch.empty_like(state) for state in states)
    return (_output(x, states[0], bidirectional, batch_first), *last)  # type: ignore[return-value]


def _gru(
    x: Tensor, state: Tensor, params: Any, biases: bool, layers: int, dropout: float,
    train: bool, bidirectional: bool, batch_first: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return _output(x, state, bidirectional, batch_first), torch.empty_like(state)


_SHAPES: dict[Any, Callable[..., Any]] = {
    torch.ops.aten.lstm.input: _lstm,
    torch.ops.aten.gru.input: _gru,
}
"""Not those of plain RNNs: the ONNX exporter spells these out step by step, for which it needs a
number of steps."""


@contextmanager
def any_length() -> Iterator[None]:
    """While this is in force, captured recurrent layers take sequences of any length."""
    kernels = {operator: operator.py_kernels[_KEY] for operator in _SHAPES}
    decompositions = {operator: decomposition_table[operator] for operator in _SHAPES}
    try:
        for operator, shapes in _SHAPES.items():
            operator.py_kernels[_KEY] = shapes
            operator._dispatch_cache.clear()
        decomposition_table.update(_SHAPES)
        yield
    finally:
        for operator, kernel in kernels.items():
            operator.py_kernels[_KEY] = kernel
            operator._dispatch_cache.clear()
        decomposition_table.update(decompositions)
