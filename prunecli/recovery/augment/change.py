"""What a preset comes to for one kind of data.

Stage: recovery. In: nothing; plain records. Never draws anything.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from prunecli.tasks import Tensors


@dataclass(frozen=True)
class Augmentation:
    """What is done to a batch of training examples.

    Attributes:
        change: stored inputs to changed ones, in their shapes: numbers become float32 of the same
            range, others stay what they are. Draws from PyTorch's global generator.
        words: what it does, for the report.
        what: examples are, for the report.
    """

    change: Callable[[Tensors], Tensors]
    words: str
    what: str = "images"


def in_words(changes: Sequence[str]) -> str:
    """`a, b and c`."""
    *first, last = changes
    return f"{', '.join(first)} and {last}" if first else last
