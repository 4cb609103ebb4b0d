"""Operators that look at a whole batch, or draw at random, while several processes share it.

Stage: recovery. In: a network in training mode and a process's part of a batch. Out: what the
network would compute for that part within the whole batch. Never changes the network, and does
nothing where one process trains.

- Batch norm takes its statistics over all parts.
- Dropout draws for the whole batch from the common generator, and each process keeps its rows: on
  the CPU, exactly what one process would draw.
- Other operators that draw (dropout inside LSTMs, of whole channels, or over values that do not
  have the batch as first axis) use a stream of each process's own: right, but not the same draws.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.overrides import TorchFunctionMode

from prunecli import crew
from prunecli.errors import ModelError
from prunecli.recovery.parts import Part
from prunecli.recovery.wide_norm import wide_batch_norm

aten = torch.ops.aten


class Together(TorchFunctionMode):
    """Inside `with`, operators of a captured graph see the whole batch; `part` is to be set
    before each pass.

    Attributes:
        stream: random state of what each process draws for itself.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        super().__init__()
        self.part = Part(0, 1, 1, 1)
        self._device = device
        own = torch.Generator(device).manual_seed((seed + crew.rank() + 1) % 2**32)
        self.stream = own.get_state()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """One operator."""
        named = kwargs or {}
        if not isinstance(func, OpOverload):
            return func(*args, **named)
        given = _by_name(func, args, named)
        if "batch_norm" in func._schema.name and given.get("training"):
            return self._norm(func, given)
        if func is aten.dropout.default and self._fits(given["input"]):
            return self._dropout(given["input"], given["p"]) if given["train"] else given["input"]
        if torch.Tag.nondeterministic_seeded in func.tags:
            with self._own_stream():
                return func(*args, **named)
        return func(*args, **named)

    def _norm(self, func: OpOverload, given: dict[str, Any]) -> Any:
        results = wide_batch_norm(
            given["input"],
            given.get("weight"),
            given.get("bias"),
            given.get("running_mean"),
            given.get("running_var"),
            given["momentum"],
            given["eps"],
            idle=self.part.idle,
        )
        outputs = len(func._schema.returns)
        if outputs not in (1, 3):
            raise ModelError(
                f"fine-tuning: {func._schema.name} cannot be shared by several processes",
                "train in one process",
            )
        return results if outputs == 3 else results[0]

    def _fits(self, values: Tensor) -> bool:
        return values.dim() > 0 and values.shape[0] == self.part.rows

    def _dropout(self, values: Tensor, share: float) -> Tensor:
        """As `aten.dropout` on the CPU: noise in the memory layout of the values."""
        if share in (0.0, 1.0):
            return values * (1.0 - share)
        noise = _like(values, self.part.total).bernoulli_(1.0 - share)
        return values * self.part.of(noise).div_(1.0 - share)

    @contextmanager
    def _own_stream(self) -> Iterator[None]:
        common = _state(self._device)
        _set_state(self._device, self.stream)
        try:
            yield
        finally:
            self.stream = _state(self._device)
            _set_state(self._device, common)


def _like(values: Tensor, rows: int) -> Tensor:
    """An empty tensor like `values`, with so many rows and in the same memory layout."""
    last = values.dim() == 4 and values.is_contiguous(memory_format=torch.channels_last)
    return torch.empty(
        (rows, *values.shape[1:]),
        dtype=values.dtype,
        device=values.device,
        memory_format=torch.channels_last if last else torch.contiguous_format,
    )


def _by_name(func: OpOverload, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """All arguments of an operator, the ones left out too."""
    expected = func._schema.arguments
    left_out = {item.name: item.default_value for item in expected if item.has_default_value()}
    in_order = zip((item.name for item in expected), args, strict=False)
    return {**left_out, **dict(in_order), **kwargs}


def _state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_state(device: torch.device, state: Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
