"""Masks that hold while a network trains.

Stage: recovery. In: masks per parameter name. Out: a companion under which a masked weight is
exactly zero after every step. Never chooses a mask.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from prunecli.errors import ModelError
from prunecli.recovery.companion import Memory, Setting, State

Masks = Mapping[str, Tensor]
"""Parameter name -> bool tensor of its shape, True = stays; unmasked parameters are absent."""


class HeldMasks:
    """Masks on the parameters of a placed network.

    Gradients are masked before the optimizer acts and weights after it: zeroed gradients alone
    would leave momentum, and what AdamW makes of its averages, to move a masked weight.

    A parameter that goes by several names (tied weights) obeys the masks of all of them.
    """

    def __init__(self, network: GraphModule, optimizer: torch.optim.Optimizer) -> None:
        self._named = dict(network.named_parameters(remove_duplicate=False))
        self._optimizer = optimizer
        self._given: tuple[str, ...] = ()
        self._gone: dict[nn.Parameter, Tensor] = {}

    @property
    def masks(self) -> dict[str, Tensor]:
        """The masks as they hold, on the CPU."""
        return {
            name: self._gone[self._named[name]].logical_not().cpu().contiguous()
            for name in self._given
        }

    def put(self, masks: Masks) -> None:
        """Hold these masks instead: what they mask becomes zero, and so does the optimizer's
        memory of it, so that a weight which returns later starts afresh.

        Raises:
            ModelError: a mask that fits no parameter.
        """
        gone: dict[nn.Parameter, Tensor] = {}
        for name, mask in masks.items():
            parameter = self._fitting(name, mask)
            # In the parameter's memory layout, which is what masks it fastest.
            own = torch.empty_like(parameter, dtype=torch.bool, requires_grad=False)
            own.copy_(~mask)
            gone[parameter] = gone[parameter] | own if parameter in gone else own
        self._given, self._gone = tuple(masks), gone
        self.mask_weights()
        for parameter, own in gone.items():
            for memory in self._optimizer.state.get(parameter, {}).values():
                if isinstance(memory, Tensor) and memory.shape == parameter.shape:
                    memory.masked_fill_(own, 0.0)

    def parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Every masked parameter, by each name under which it was masked."""
        return ((name, self._named[name]) for name in self._given)

    def mask_gradients(self) -> None:
        """Nothing pulls at a masked weight."""
        for parameter, gone in self._gone.items():
            if parameter.grad is not None:
                parameter.grad.masked_fill_(gone, 0.0)

    def mask_weights(self) -> None:
        """Masked weights are +0.0, also where they were not finite or negative."""
        with torch.no_grad():
            for parameter, gone in self._gone.items():
                parameter.masked_fill_(gone, 0.0)

    def _fitting(self, name: str, mask: Tensor) -> nn.Parameter:
        parameter = self._named.get(name)
        if parameter is None:
            raise ModelError(f"masks: only parameters can be masked, got {name}")
        if mask.shape != parameter.shape or mask.dtype != torch.bool:
            raise ModelError(
                f"masks: {name} needs bool {tuple(parameter.shape)}, "
                f"got {str(mask.dtype).removeprefix('torch.')} {tuple(mask.shape)}"
            )
        return parameter


class KeepMasks:
    """The same masks from before the first step to the end."""

    def __init__(self, masks: Masks) -> None:
        self.masks = dict(masks)
        self._held: HeldMasks | None = None

    def begin(self, setting: Setting) -> None:
        """Mask the weights."""
        self._held = HeldMasks(setting.network, setting.optimizer)
        self._held.put(self.masks)

    def penalty(self) -> Tensor | None:
        """None."""
        return None

    def before_step(self, step: int, steps: int) -> None:
        """Mask the gradients."""
        assert self._held is not None
        self._held.mask_gradients()

    def after_step(self, step: int, steps: int) -> None:
        """Mask the weights."""
        assert self._held is not None
        self._held.mask_weights()

    def counts(self, done: int, steps: int) -> bool:
        """Always: the masks are final from the start."""
        return True

    def snapshot(self) -> State:
        """Nothing: the masks do not change."""
        return {}

    def restore(self, state: State) -> None:
        """The kept weights are masked already."""

    def memory(self) -> Memory:
        """Nothing: the masks are those that it began with."""
        return {}

    def recall(self, memory: Memory) -> None:
        """Nothing."""
