"""What every stage of a run works with.

Stage: pipeline. Plain records, and the examples that stages draw from the training data.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from prunecli.config import RunConfig
from prunecli.data import DataSet
from prunecli.graph.capture import Captured
from prunecli.graph.cost import Cost
from prunecli.importance.calibration import Calibration
from prunecli.pipeline.journal import Journal
from prunecli.pipeline.ledger import Ledger
from prunecli.pipeline.prepare import Prepared
from prunecli.progress import Reporter
from prunecli.recovery import affordable
from prunecli.tasks import Tensors


@dataclass(frozen=True)
class Pace:
    """How far a step goes.

    Attributes:
        number: of the round, from 1.
        done, share: of everything asked for, what is gone before and after this step.
    """

    number: int = 1
    done: float = 0.0
    share: float = 1.0

    def of_rest(self, share: float) -> float:
        """Of what is left, the part that goes now, where `share` of all is to go in the end."""
        return share * (self.share - self.done) / (1.0 - share * self.done)


@dataclass(frozen=True)
class Job:
    """One run.

    Attributes:
        original: cost of the network as it came.
        journal: what takes long goes through it, so that a run which goes on need not repeat it.
    """

    config: RunConfig
    prepared: Prepared
    ledger: Ledger
    reporter: Reporter
    original: Cost
    journal: Journal = field(default_factory=Journal)

    @property
    def seed(self) -> int:
        """For everything that is drawn."""
        return self.config.train.seed

    @property
    def trains(self) -> bool:
        """Whether the network is fine-tuned."""
        return self.prepared.data is not None and self.config.train.epochs > 0

    def calibration(self, captured: Captured) -> Calibration | None:
        """Training examples for criteria that look at data; `None` without data.

        Whole batches where the graph fixes its batch.
        """
        data = self.prepared.data
        if data is None:
            return None
        number = self.config.removal.calibration_samples
        if not captured.dynamic_batch:
            number = max(number // captured.batch, 1) * captured.batch
        places = _drawn(data, number, self.seed + 1)
        inputs = data.prepare(tuple(item[places] for item in data.train.inputs))
        targets = tuple(item[places] for item in data.train.targets)
        return Calibration(inputs, targets, data.task)

    def unlabelled(self, captured: Captured, number: int, draw: int = 0) -> Tensors | None:
        """Prepared inputs of at most `number` training examples, as many as memory allows.

        Args:
            draw: another one has other examples, where there are many.
        """
        data = self.prepared.data
        if data is None:
            return None
        number = affordable(captured, number) if captured.dynamic_batch else captured.batch
        places = _drawn(data, number, self.seed + draw)
        return data.prepare(tuple(item[places] for item in data.train.inputs))


def _drawn(data: DataSet, number: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(len(data.train), generator=generator)[:number]
