"""What is done to training examples, as far as it means something for the data.

Stage: recovery. In: a data set and the training configuration. Out: `Changes`, or an error before
any work is done. Never trains.
"""

from dataclasses import dataclass

from prunecli.choices import Augment
from prunecli.data import DataSet
from prunecli.recovery.augment import Augmentation, augmentation_for
from prunecli.recovery.mixing import Mixing, mixing_for
from prunecli.tasks import Tensors
from prunecli.tuning import TrainConfig


@dataclass(frozen=True)
class Changes:
    """What happens to a training batch.

    Attributes:
        mixing: of prepared batches, with their targets.
        notes: for the report.
    """

    data: DataSet
    augmentation: Augmentation | None
    mixing: Mixing | None
    notes: tuple[str, ...]

    def prepare(self, stored: Tensors) -> Tensors:
        """A stored training batch as model inputs, changed at random on the way."""
        change = self.augmentation
        return self.data.prepare(stored if change is None else change.change(stored))


def changes_for(data: DataSet, config: TrainConfig) -> Changes:
    """What was asked for.

    Raises:
        ConfigError: such examples do not take it.
    """
    augmentation, mixing = augmentation_for(data, config.augment), mixing_for(data, config)
    notes: list[str] = []
    if augmentation is not None:
        notes.append(f"training {augmentation.what} are changed by: {augmentation.words}")
    elif config.augment is Augment.AUTO and any(own.image for own in data.preprocess):
        placed = "the targets say where something is"
        why = placed if data.task.in_place else "only colour images are changed"
        notes.append(f"training images are used as they are; {why}")
    if mixing is not None:
        notes.append(mixing.words)
    return Changes(data, augmentation, mixing, tuple(notes))
