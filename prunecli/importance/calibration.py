"""Calibration: the examples that criteria look at.

Stage: importance. A plain record.
"""

from dataclasses import dataclass

from prunecli.tasks import Task, Tensors


@dataclass(frozen=True)
class Calibration:
    """Prepared training examples, never from the validation split.

    Attributes:
        inputs: each `(N, ...)`, as the network takes them. N: examples.
        targets: each `(N, ...)`, as the task takes them.
    """

    inputs: Tensors
    targets: Tensors
    task: Task

    def __len__(self) -> int:
        return int(self.inputs[0].shape[0])
