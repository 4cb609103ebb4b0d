"""How long a run is: examples per step, steps per epoch, steps in all.

Stage: recovery. In: the network, the data, the training configuration. Out: `Pace`. Never trains.
"""

import math
from dataclasses import dataclass

from torch.fx import GraphModule

from prunecli.data import DataSet
from prunecli.errors import ConfigError
from prunecli.graph.capture import fixed_batch
from prunecli.recovery.mode import learns_statistics
from prunecli.tuning import TrainConfig


@dataclass(frozen=True)
class Pace:
    """Lengths of a run.

    Attributes:
        batch: examples that are computed at once, by all processes together.
        used: examples of each whole epoch.
        steps: of the whole run.
        accumulate: batches of each step; the last of an epoch may have fewer.
    """

    batch: int
    used: int
    steps: int
    accumulate: int = 1

    @property
    def examples(self) -> int:
        """Examples of each step but the last of an epoch."""
        return self.batch * self.accumulate

    @property
    def steps_per_epoch(self) -> int:
        """Steps of a whole epoch."""
        return steps_per_epoch(self.used, self.examples)

    @property
    def epochs(self) -> int:
        """Whole epochs, and what is left as one more."""
        return math.ceil(self.steps / self.steps_per_epoch)

    def done(self, epochs: int) -> int:
        """Steps done after so many epochs."""
        return min(epochs * self.steps_per_epoch, self.steps)


def steps_per_epoch(used: int, examples: int) -> int:
    """The last step of an epoch may have fewer examples."""
    return math.ceil(used / examples)


def pace_of(network: GraphModule, data: DataSet, config: TrainConfig, epochs: float) -> Pace:
    """The pace of `epochs` epochs, which may end within one: after the nearest whole number of
    steps, but never before the first.

    Raises:
        ConfigError: the batches that the data gives cannot be trained on.
    """
    batch, used = _sizes(network, data, config)
    each = steps_per_epoch(used, batch * config.accumulate)
    return Pace(batch, used, max(1, round(epochs * each)), config.accumulate)


def _sizes(network: GraphModule, data: DataSet, config: TrainConfig) -> tuple[int, int]:
    """Examples of a step, and of an epoch.

    A last batch of one is left out, because batch norm has no variance over one value, and so
    is any incomplete one where the graph fixes its batch. Every epoch leaves out others.

    Raises:
        ConfigError: the batches that would be left cannot be trained on.
    """
    count, fixed = len(data.train), fixed_batch(network)
    batch = fixed or config.batch_size
    rest = count % batch
    if fixed is not None:
        used = count - rest
    else:
        used = count - 1 if rest == 1 and count > batch else count
    smallest = min(batch, used)
    if not used:
        raise ConfigError(
            f"fine-tuning: the graph takes batches of {batch}, got {count} training examples",
            "give more data, or use --epochs 0",
        )
    if smallest < 2 and learns_statistics(network):
        raise ConfigError(
            f"--batch-size: batch norm needs at least 2 examples to train on, got {smallest}",
            "raise --batch-size, give more data, or use --epochs 0",
        )
    return batch, used
