"""How several processes share the batches of a run.

Stage: recovery. In: batches that all processes have drawn alike. Out: each process's part, and sums
over all parts. In a run of one process the part is the whole, and nothing is sent.

Gradients are added up here and not by `DistributedDataParallel`: its hooks hold on to parameters,
while a companion may take the network home in the middle of training, and it takes the mean over
processes, which is wrong where the parts of a last batch differ in size.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from prunecli import crew
from prunecli.errors import ConfigError
from prunecli.graph.capture import fixed_batch
from prunecli.recovery.pace import Pace
from prunecli.tasks import Tensors

BUCKET = 2**22
"""Numbers that are sent at once: gradients are copied into one block of memory for that."""


@dataclass(frozen=True)
class Part:
    """A process's part of a batch.

    Attributes:
        first: row of the batch that it begins with.
        rows: that are computed; one where there is none, for nothing else can be run.
        count: that count: `rows`, or 0.
        total: rows of the whole batch.
    """

    first: int
    rows: int
    count: int
    total: int

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do; what is computed then does not count."""
        return self.count == 0

    def of(self, batch: Tensor) -> Tensor:
        """The rows of `batch` `(total, ...)`."""
        return batch if self.rows == self.total else batch[self.first : self.first + self.rows]


def part_of(total: int) -> Part:
    """This process's part of a batch of `total` examples: parts differ by at most one."""
    size, rank = crew.size(), crew.rank()
    first, stop = (total * place // size for place in (rank, rank + 1))
    count = stop - first
    return Part(first if count else 0, max(count, 1), count, total)


def share_of(part: Part, targets: Tensors, weight: Callable[[Tensors], float]) -> float:
    """What the mean over a part counts in the mean over its batch."""
    if part.count == part.total:
        return 1.0
    if not targets:
        return part.count / part.total
    whole = weight(targets)
    own = 0.0 if part.idle else weight(tuple(map(part.of, targets)))
    return own / whole if whole else 0.0


def shareable(pace: Pace, network: GraphModule) -> Pace:
    """The pace, if processes can share its batches.

    Raises:
        ConfigError: there are too many processes.
    """
    size = crew.size()
    if size == 1:
        return pace
    if fixed_batch(network) is not None:
        raise ConfigError(
            f"fine-tuning: the graph takes batches of {pace.batch} only, which {size} processes "
            "cannot share",
            "train in one process, or capture the network with a free batch",
        )
    if pace.batch < size:
        raise ConfigError(
            f"--batch-size: at least one example for each of {size} processes is needed, got "
            f"{pace.batch}",
            "raise --batch-size (it counts the examples of all processes), or start fewer",
        )
    return pace


def share_weights(network: nn.Module) -> None:
    """Give all processes the main one's parameters and buffers."""
    if crew.size() == 1:
        return
    crew.meet()
    with torch.no_grad():
        for tensor in (*network.parameters(), *network.buffers()):
            crew.from_main(tensor)


def add_up_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its sum over all processes, which is the same in each."""
    if crew.size() == 1:
        return
    for bucket in _buckets(item.grad for item in parameters if item.grad is not None):
        block = crew.add_up(torch.cat([gradient.reshape(-1) for gradient in bucket]))
        begin = 0
        for gradient in bucket:
            end = begin + gradient.numel()
            gradient.copy_(block[begin:end].view(gradient.shape))
            begin = end


def add_up_losses(losses: Sequence[Tensor]) -> list[float]:
    """Sums over batches and processes; each of `losses` has one entry for each kind of loss."""
    summed = losses[0] if len(losses) == 1 else torch.stack(list(losses)).sum(0)
    found: list[float] = crew.add_up(summed).tolist()
    return found


def _buckets(gradients: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Gradients of one kind of number, together at most `BUCKET` or a single one."""
    bucket: list[Tensor] = []
    for gradient in gradients:
        full = sum(item.numel() for item in bucket) + gradient.numel() > BUCKET
        if bucket and (full or bucket[0].dtype != gradient.dtype):
            yield bucket
            bucket = []
        bucket.append(gradient)
    if bucket:
        yield bucket
