"""Mixup and CutMix: training on mixtures of two examples, with mixtures of their losses.

Stage: recovery. In: a prepared batch. Out: a mixed one, and which targets belong to it. Never sees
what chooses or judges.

One share is drawn for each batch, from PyTorch's global generator on the CPU, so that every device
draws the same. Kornia's versions take images only, and its mixup draws shares evenly.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from prunecli.data import DataSet
from prunecli.errors import ConfigError
from prunecli.tasks import Tensors, in_numbers
from prunecli.tuning import TrainConfig


@dataclass(frozen=True)
class Mixed:
    """A mixed batch.

    Attributes:
        inputs: each `(B, ...)`.
        partner: `(B,)` int64, the example of the batch that each was mixed with.
        share: what is left of each example itself, in 0-1.
    """

    inputs: Tensors
    partner: Tensor
    share: float

    def others(self, targets: Tensors) -> Tensors:
        """The targets of the partners."""
        return tuple(item[self.partner] for item in targets)


Mix = Callable[[Tensor, Tensor, float], tuple[Tensor, float]]
"""Examples `(B, C, ...)`, their partners and a share -> mixed examples, and their real share."""


def blended(examples: Tensor, others: Tensor, share: float) -> tuple[Tensor, float]:
    """share x + (1 - share) x' (Zhang et al. 2018, arXiv:1710.09412)."""
    return share * examples + (1.0 - share) * others, share


def pasted(examples: Tensor, others: Tensor, share: float) -> tuple[Tensor, float]:
    """A box of x' in x (Yun et al. 2019, arXiv:1905.04899), over all axes after the channels.

    The box has its centre anywhere, and may stand over the edge: the share that counts is that of
    what was really replaced.
    """
    extents = examples.shape[2:]
    mixed, box, scale = examples.clone(), [], (1.0 - share) ** (1.0 / len(extents))
    for extent in extents:
        centre, side = int(torch.randint(extent, ())), int(extent * scale)
        first = max(centre - side // 2, 0)
        box.append(slice(first, min(centre - side // 2 + side, extent)))
    place = (slice(None), slice(None), *box)
    mixed[place] = others[place]
    replaced = math.prod(part.stop - part.start for part in box) / math.prod(extents)
    return mixed, 1.0 - replaced


@dataclass(frozen=True)
class Mixing:
    """How batches are mixed.

    Attributes:
        ways: functions and the parameters of their Beta(alpha, alpha) distributions; of several,
            each batch draws one.
        shapes: of an example's inputs as they are stored, channels first.
        words: what is done, for the report.
    """

    ways: tuple[tuple[Mix, float], ...]
    shapes: tuple[tuple[int, ...], ...]
    words: str

    def __call__(self, inputs: Tensors) -> Mixed:
        """Mix a prepared batch, each `(B, ...)`."""
        way, alpha = self.ways[int(torch.randint(len(self.ways), ()))]
        exact = torch.tensor(alpha, dtype=torch.float64)
        share = float(torch.distributions.Beta(exact, exact).sample())
        partner = torch.randperm(len(inputs[0])).to(inputs[0].device)
        mixed: list[Tensor] = []
        for item, shape in zip(inputs, self.shapes, strict=True):
            # A network of linear layers may take its images flat; a box needs their axes.
            examples = item.reshape(len(item), *shape)
            found, real = way(examples, examples[partner], share)
            mixed.append(found.reshape(item.shape))
        # Where there are several inputs they are blended, all with the share that was drawn.
        return Mixed(tuple(mixed), partner, real)


def mixing_for(data: DataSet, config: TrainConfig) -> Mixing | None:
    """What was asked for; `None` for nothing.

    Raises:
        ConfigError: it means nothing for this data.
    """
    asked = {"--mixup": (blended, config.mixup), "--cutmix": (pasted, config.cutmix)}
    given = {flag: (way, alpha) for flag, (way, alpha) in asked.items() if alpha is not None}
    shapes = tuple(tuple(item.shape[1:]) for item in data.train.inputs)
    for flag in given:
        _check_mixed(flag, data)
    if "--cutmix" in given:
        _check_pasted(shapes)
    if not given:
        return None
    names = " or ".join(flag.removeprefix("--") for flag in given)
    return Mixing(tuple(given.values()), shapes, f"training examples are mixed in pairs: {names}")


def _check_mixed(flag: str, data: DataSet) -> None:
    if not data.task.mixes:
        raise ConfigError(
            f"{flag}: mixes classes of whole examples, got data for {data.task.name}",
            f"leave {flag} out",
        )
    if not all(own.dtype.is_floating_point for own in data.preprocess):
        raise ConfigError(
            f"{flag}: mixes numbers, got whole numbers that the network takes as they are",
            f"leave {flag} out",
        )


def _check_pasted(shapes: tuple[tuple[int, ...], ...]) -> None:
    if len(shapes) > 1:
        raise ConfigError(
            f"--cutmix: pastes into one input, got {len(shapes)}",
            "use --mixup, which blends all of them",
        )
    if len(shapes[0]) < 2:
        raise ConfigError(
            "--cutmix: needs examples with a place to paste into, got "
            f"{in_numbers(shapes[0])} numbers",
            "use --mixup, which works for tables too",
        )
