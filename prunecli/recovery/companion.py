"""What accompanies training: masks, schedules and penalties, as one contract.

Stage: recovery. In: nothing; this is the contract that `finetune` keeps. Out: companions that do
their part at every step. Never trains, and never sees an example.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.fx import GraphModule

State = Mapping[str, Tensor]

Memory = Mapping[str, Any]
"""What a training needs to go on from an epoch's end in another process: tensors, numbers, texts,
`None`, and lists and dictionaries of them, by name."""


@dataclass(frozen=True)
class Setting:
    """What a companion works on.

    Attributes:
        network: as it is trained: on its device, in its memory layout.
        optimizer: whose memory of past gradients goes with weights that go.
        steps: of the whole run.
        at_rest: inside this block the network is as it was handed to `finetune` (evaluation mode,
            home device and layout, no gradients) but for its weights, and may be run and
            differentiated; afterwards training goes on as if nothing had happened.
    """

    network: GraphModule
    optimizer: torch.optim.Optimizer
    steps: int
    at_rest: Callable[[], AbstractContextManager[None]]


class Companion(Protocol):
    """Called around every step of a run. Steps are numbered from 0."""

    def begin(self, setting: Setting) -> None:
        """Before the network is scored for the first time."""

    def penalty(self) -> Tensor | None:
        """A scalar that is added to the loss."""

    def before_step(self, step: int, steps: int) -> None:
        """Gradients are there and may be changed; the optimizer acts next."""

    def after_step(self, step: int, steps: int) -> None:
        """Weights have been updated and may be changed."""

    def counts(self, done: int, steps: int) -> bool:
        """Whether the weights after `done` of `steps` steps may be what is kept in the end."""

    def snapshot(self) -> State:
        """The companion's own state, which is kept together with the weights."""

    def restore(self, state: State) -> None:
        """Take back a snapshot; the weights of that moment are in place."""

    def memory(self) -> Memory:
        """All that it would need to go on from the end of this epoch in another process."""

    def recall(self, memory: Memory) -> None:
        """Go on from there. It has begun; the weights and the optimizer's memory of that moment
        are put in place after it."""


@dataclass(frozen=True)
class Chain:
    """Several companions as one, asked in order; see `chain`."""

    members: tuple[Companion, ...]

    def begin(self, setting: Setting) -> None:
        """Hand the setting on."""
        for member in self.members:
            member.begin(setting)

    def penalty(self) -> Tensor | None:
        """The sum of what the members add to the loss."""
        found = [item for member in self.members if (item := member.penalty()) is not None]
        return torch.stack(found).sum() if len(found) > 1 else next(iter(found), None)

    def before_step(self, step: int, steps: int) -> None:
        """One member after the other."""
        for member in self.members:
            member.before_step(step, steps)

    def after_step(self, step: int, steps: int) -> None:
        """One member after the other."""
        for member in self.members:
            member.after_step(step, steps)

    def counts(self, done: int, steps: int) -> bool:
        """Whether all agree."""
        return all(member.counts(done, steps) for member in self.members)

    def snapshot(self) -> State:
        """All members' states, told apart by their place."""
        return {
            f"{place}/{name}": tensor
            for place, member in enumerate(self.members)
            for name, tensor in member.snapshot().items()
        }

    def restore(self, state: State) -> None:
        """Every member gets its own part back."""
        for place, member in enumerate(self.members):
            own = f"{place}/"
            member.restore(
                {
                    name.removeprefix(own): tensor
                    for name, tensor in state.items()
                    if name.startswith(own)
                }
            )

    def memory(self) -> Memory:
        """All members' memories, in order."""
        return {"members": [dict(member.memory()) for member in self.members]}

    def recall(self, memory: Memory) -> None:
        """Every member gets its own."""
        for member, own in zip(self.members, memory["members"], strict=True):
            member.recall(own)


def chain(*companions: Companion) -> Companion:
    """Several companions as one; none does nothing. At most one of them may hold masks."""
    return companions[0] if len(companions) == 1 else Chain(companions)
