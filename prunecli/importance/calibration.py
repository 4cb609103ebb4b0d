"""Calibration: the examples that criteria look at.

Stage: importance. A plain record.
"""

from dataclasses import dataclass

from torch import Tensor

from prunecli.data import Task


@dataclass(frozen=True)
class Calibration:
    """Prepared training examples, never from the validation split.

    Attributes:
        inputs: `(N, ...)`, as the network takes them. N: examples.
        targets: `(N,)` classes or `(N, ...)` numbers.
        task: what the targets are.
    """

    inputs: Tensor
    targets: Tensor
    task: Task

    def __len__(self) -> int:
        return int(self.inputs.shape[0])
