"""Random changes of training examples: a preset, and what it does to images, sounds and texts.

Stage: recovery. In: a data set, a preset. Out: a function over stored batches, or none. Never
touches the examples that choose or judge.
"""

from prunecli.recovery.augment.change import Augmentation
from prunecli.recovery.augment.choosing import augmentation_for

__all__ = ["Augmentation", "augmentation_for"]
