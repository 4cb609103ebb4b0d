"""Evidence: what criteria may look at, and the batches in which they look at it.

Stage: importance. In: a captured network and calibration examples. Out: batches of them. Knows
no criterion.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from prunecli.errors import ConfigError
from prunecli.graph.capture import Captured
from prunecli.importance.calibration import Calibration
from prunecli.progress import Reporter
from prunecli.tasks import Tensors

BATCH = 32
"""Examples whose mean loss gives one gradient, where the network takes any number."""


@dataclass(frozen=True)
class Evidence:
    """What there is to judge by.

    Attributes:
        calibration: `None` without `--data`.
        seed: of everything random.
    """

    captured: Captured
    calibration: Calibration | None
    seed: int
    reporter: Reporter

    def examples(self) -> Calibration:
        """The calibration examples.

        Raises:
            ConfigError: there are none.
        """
        if self.calibration is None or len(self.calibration) == 0:
            raise ConfigError(
                "--criterion: one that looks at data needs calibration examples, got none",
                "give --data, or use l1, l2 or another criterion of weights alone",
            )
        return self.calibration

    def cuts(
        self, size: int = BATCH, *, rest: bool = False, most: int | None = None
    ) -> list[slice]:
        """Batches of the examples, as places: of `size`, or of the only size that the graph takes.

        Args:
            rest: an incomplete last batch counts too, where the graph takes it. Without, it is
                left out unless it is the only one, so that every batch weighs the same.
            most: examples to look at; at least one batch.

        Raises:
            ConfigError: there are no examples, or fewer than the graph takes at once.
        """
        found = len(self.examples())
        fixed = None if self.captured.dynamic_batch else self.captured.batch
        size = fixed or size
        if fixed and found < fixed:
            raise ConfigError(
                f"--calibration-samples: the graph takes batches of {fixed}, got {found} examples",
                f"raise --calibration-samples to at least {fixed}, or give more data",
            )
        used = found if most is None else min(found, max(most, size))
        whole = used // size
        places = [slice(size * place, size * (place + 1)) for place in range(whole)]
        if size * whole < used and (not places or (rest and fixed is None)):
            places.append(slice(size * whole, used))
        return places

    def batches(self, title: str, cuts: list[slice]) -> Iterator[tuple[Tensors, Tensors]]:
        """Inputs and targets of each of `cuts`, with progress.

        The inputs are copies: a network may work on its input in place.
        """
        examples = self.examples()
        with self.reporter.step(title, len(cuts)) as step:
            for done, cut in enumerate(cuts):
                yield (
                    tuple(item[cut].clone() for item in examples.inputs),
                    tuple(item[cut] for item in examples.targets),
                )
                step.update(done + 1)
