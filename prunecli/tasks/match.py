"""`--task match`: the pruned network is to say what the original says; no labels are needed.

Stage: tasks. In: nothing. Out: one `Task`. Its targets, where something is judged, are the
original's outputs.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from prunecli.choices import TaskName
from prunecli.errors import ConfigError, DataError
from prunecli.metric import Metric
from prunecli.tasks.rows import no_examples
from prunecli.tasks.task import Scores, Task, Tensors

RELATIVE_ERROR = Metric(
    "relative_error", "relative error", True, False, "of the outputs", "saying nothing scores"
)
AGREEMENT = Metric("agreement", "agreement", True, True)

PIECE = 1 << 22
"""Numbers that are compared at once."""

TINY = 1e-12
"""Added to mean squares that are divided by."""


def numbers_of(outputs: Tensors) -> Tensors:
    """The outputs that can be made equal: those that hold numbers, and more than a single one for
    all examples together (an auxiliary loss)."""
    return tuple(item for item in outputs if item.is_floating_point() and item.dim())


def answers_of(outputs: Tensors, count: int) -> Tensors:
    """The original's outputs for `count` examples, as far as they can be matched.

    Raises:
        DataError: there are none, or one that does not say which example it is about.
    """
    found = numbers_of(outputs)
    if not found:
        got = ", ".join(_in_words(item) for item in outputs)
        raise DataError(
            f"data: --task match needs outputs with a decimal point for each example, got {got}",
            "return scores instead of classes, or leave out --data to prune without training",
        )
    for item in found:
        if len(item) != count:
            raise DataError(
                f"data: --task match needs outputs that count examples on their first axis, got "
                f"{_in_words(item)} for {count} examples",
                "let forward return them batch first, or leave out --data to prune without "
                "training",
            )
    return found


def _in_words(output: Tensor) -> str:
    """`float32 (2, 10)`."""
    return f"{str(output.dtype).removeprefix('torch.')} {tuple(output.shape)}"


def _loss(outputs: Tensors, targets: Tensors, smoothing: float) -> Tensor:
    raise ConfigError(
        "--task match: there are no labels, so that there is no loss to look at",
        "use a --criterion that needs none: l2, wanda or activation (for layers: similarity)",
    )


def _distance(outputs: Tensors, wanted: Tensors, targets: Tensors, temperature: float) -> Tensor:
    """For each output its mean squared error over its mean square, the sum over outputs: the
    same at any scale. Of scores of classes this does as well as comparing them as distributions
    (Kim et al. 2021, arXiv:2105.08919)."""
    parts = [
        F.mse_loss(said, meant) / (meant.square().mean() + TINY)
        for said, meant in zip(numbers_of(outputs), numbers_of(wanted), strict=True)
    ]
    return torch.stack(parts).sum()


class _MatchMeter:
    """How far from the original's outputs, over all examples."""

    def __init__(self) -> None:
        self._apart: list[float] = []
        self._size: list[float] = []
        self._same = self._positions = 0

    def update(self, outputs: Tensors, targets: Tensors) -> None:
        """Take in one batch; see `Meter`. `targets`: the original's outputs."""
        pairs = list(zip(numbers_of(outputs), targets, strict=True))
        self._apart = self._apart or [0.0] * len(pairs)
        self._size = self._size or [0.0] * len(pairs)
        for place, (said, meant) in enumerate(pairs):
            for one, two in _pieces(said.detach(), meant):
                self._apart[place] += float((one - two).square().sum())
                self._size[place] += float(two.square().sum())
        said, meant = pairs[0]
        axis = _axis_of_classes(said)
        if axis is not None:
            same = said.argmax(axis) == meant.argmax(axis)
            self._same += int(same.sum())
            self._positions += same.numel()

    def compute(self) -> Scores:
        """The scores of everything taken in; see `Meter`."""
        if not self._apart:
            raise no_examples()
        errors = [
            (apart / size) ** 0.5 if size else float(apart > 0)
            for apart, size in zip(self._apart, self._size, strict=True)
        ]
        agreement = self._same / self._positions if self._positions else None
        return Scores(sum(errors) / len(errors), 1.0, ((AGREEMENT, agreement),))


def _pieces(said: Tensor, meant: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Both in double precision, as much at once as takes little memory."""
    pieces = (torch.split(item.flatten(), PIECE) for item in (said, meant))
    for one, two in zip(*pieces, strict=True):
        yield one.double(), two.double()


def _axis_of_classes(output: Tensor) -> int | None:
    """Where one of several stands out, if there is such an axis: the channels of an image, else
    the last one."""
    axis = 1 if output.dim() >= 4 else output.dim() - 1
    return axis if axis > 0 and output.shape[axis] > 1 else None


MATCH = Task(
    TaskName.MATCH,
    RELATIVE_ERROR,
    _loss,
    _distance,
    _MatchMeter,
    # Whether there are outputs to match, the first batch of answers tells; see `answers_of`.
    lambda _: None,
    share=1.0,
    labelled=False,
    outputs=None,
)
