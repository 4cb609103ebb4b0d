"""Gradual pruning: masks that grow while the network trains.

Stage: recovery. In: when (`removal.Timing`), and a function that chooses masks. Out: a companion
of training. Never scores or selects by itself.
"""

from collections.abc import Callable
from dataclasses import astuple, dataclass
from typing import Protocol

import torch
from torch import Tensor

from prunecli.errors import VerificationError
from prunecli.recovery.companion import Memory, Setting, State
from prunecli.recovery.curves import decayed, updates
from prunecli.recovery.masking import HeldMasks, Masks
from prunecli.recovery.regrowth import regrown
from prunecli.timing import Timing

Choose = Callable[[float, Masks], Masks]
"""(share of the final removal, current masks) -> masks that remove so much in all, and whatever
the current ones remove. Called with the network at rest, as it was handed to training but for its
weights (see `companion.Setting.at_rest`); those that are masked are zero."""


class Chosen(Protocol):
    """What whoever chooses masks knows between two updates."""

    def memory(self) -> Memory:
        """As in `Companion`."""

    def recall(self, memory: Memory) -> None:
        """As in `Companion`."""


@dataclass(frozen=True)
class Update:
    """A change of the masks.

    Attributes:
        step: before which step.
        share: of the final removal.
        removed, prunable: elements that are masked, of the tensors that have a mask.
        exchanged: elements that returned, and as many others that went for them.
    """

    step: int
    share: float
    removed: int
    prunable: int
    exchanged: int


class Gradual:
    """Masks that follow a curve (Zhu & Gupta 2017, arXiv:1710.01878) and then stay.

    Only what is trained with the final masks counts. Without `timing.regrow` a masked weight
    never comes back; with it, tensors exchange weights at every update (see `regrowth`).

    Attributes:
        history: what was done so far.
    """

    def __init__(self, timing: Timing, choose: Choose, chosen: Chosen | None = None) -> None:
        """`chosen`: of a function that remembers something between two calls."""
        self._timing, self._choose, self._chosen = timing, choose, chosen
        self._setting: Setting | None = None
        self._held: HeldMasks | None = None
        self._due: dict[int, float] = {}
        self.history: list[Update] = []

    @property
    def masks(self) -> dict[str, Tensor]:
        """The masks as they are; after training, those of the weights that were kept."""
        return {} if self._held is None else self._held.masks

    def begin(self, setting: Setting) -> None:
        """Nothing is masked yet."""
        self._setting = setting
        self._held = HeldMasks(setting.network, setting.optimizer)
        self._due = updates(setting.steps, self._timing)
        self.history = []

    def penalty(self) -> Tensor | None:
        """None."""
        return None

    def before_step(self, step: int, steps: int) -> None:
        """Change the masks if it is time to, then mask the gradients.

        Raises:
            VerificationError: what was chosen would bring masked weights back.
        """
        assert self._held is not None
        if step in self._due:
            self._update(self._held, step)
        self._held.mask_gradients()

    def after_step(self, step: int, steps: int) -> None:
        """Mask the weights."""
        assert self._held is not None
        self._held.mask_weights()

    def counts(self, done: int, steps: int) -> bool:
        """Once a step was done with the final masks."""
        return done > max(self._due)

    def snapshot(self) -> State:
        """The masks."""
        return self.masks

    def restore(self, state: State) -> None:
        """Hold these masks again."""
        assert self._held is not None
        self._held.put(state)

    def memory(self) -> Memory:
        """The masks, what was done so far, and what the next choice goes by."""
        return {
            "masks": self.masks,
            "history": [list(astuple(update)) for update in self.history],
            "chosen": {} if self._chosen is None else dict(self._chosen.memory()),
        }

    def recall(self, memory: Memory) -> None:
        """Hold these masks again, and choose the next ones as if nothing had happened."""
        self.restore(memory["masks"])
        self.history = [Update(*update) for update in memory["history"]]
        if self._chosen is not None:
            self._chosen.recall(memory["chosen"])

    def _update(self, held: HeldMasks, step: int) -> None:
        assert self._setting is not None
        before = held.masks
        with self._setting.at_rest():
            masks = self._choose(self._due[step], before)
        _check_none_returns(before, masks)
        held.put(masks)
        exchanged = 0
        if self._timing.regrow:
            # What has just been pruned may return, but as everything that does: at zero.
            pruned, share = held.masks, decayed(self._timing.regrow, step, self._due)
            masks = regrown(pruned, held.parameters(), share)
            exchanged = sum(int((masks[name] & ~pruned[name]).sum()) for name in masks)
            held.put(masks)
        removed = sum(int((~mask).sum()) for mask in masks.values())
        prunable = sum(mask.numel() for mask in masks.values())
        self.history.append(Update(step, self._due[step], removed, prunable, exchanged))


def _check_none_returns(before: Masks, after: Masks) -> None:
    for name, mask in before.items():
        stays = after.get(name, torch.ones_like(mask))
        if bool((stays & ~mask).any()):
            raise VerificationError(
                f"gradual pruning: a masked weight must not come back, got one in {name}",
                "this is a bug in prunecli: please report it with the model and the command",
            )
