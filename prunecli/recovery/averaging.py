"""Weight averaging: an exponential moving average of what training passes through.

Stage: recovery. In: a placed network, after each step. Out: the averaged network, shown in place
of the trained one for the length of a block. Never changes how training goes on.

`torch.optim.swa_utils` does the arithmetic. Its `AveragedModel` is not used: it keeps a second
graph, which would have to be placed and switched between modes like the first.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.optim.swa_utils import get_ema_multi_avg_fn

from prunecli.recovery.companion import State

UPDATES = "updates"


def decay_at(update: int, decay: float) -> float:
    """What the average keeps of itself at `update`, counted from 0.

    It grows to `decay`, so that the average of a short run is not mostly its start: after n steps
    it spans about the last tenth of them (the rule of TensorFlow's `ExponentialMovingAverage`).
    """
    return min(decay, (1 + update) / (10 + update))


class Averages:
    """The average of all parameters, and of the statistics of batch norms with them.

    Statistics are averaged, not copied: those of the last weights do not fit averaged ones. They
    are averages over batches already, and their mean over the same steps is that of the averaged
    network to first order.

    A weight that is zero now is zero in the average: what masks hold is +0.0 exactly, whenever it
    was masked.
    """

    def __init__(self, network: GraphModule, decay: float) -> None:
        """Begin with the weights as they are: masked already, where masks hold from the start."""
        self._network, self._decay = network, decay
        self._updates = 0
        # Constants with infinities in them (masks of attention) never change, and have no average.
        self._means = {
            name: tensor.detach().clone()
            for name, tensor in _tensors(network).items()
            if tensor.is_floating_point() and bool(torch.isfinite(tensor).all())
        }

    def update(self) -> None:
        """Take in the weights as they are."""
        now = _tensors(self._network)
        decay = decay_at(self._updates, self._decay)
        average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        for name, mean in self._means.items():
            average([mean], [now[name].detach()], self._updates)
        self._updates += 1

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Inside the block the network has the averaged weights."""
        now = _tensors(self._network)
        trained = {name: now[name].detach().clone() for name in self._means}
        self._put(self.weights())
        try:
            yield
        finally:
            self._put(trained)

    def keep(self) -> None:
        """The network has the averaged weights from now on."""
        self._put(self.weights())

    def weights(self) -> dict[str, Tensor]:
        """The averages, masked as the network is."""
        parameters = dict(self._network.named_parameters())
        return {
            name: mean.masked_fill(parameters[name] == 0, 0.0) if name in parameters else mean
            for name, mean in self._means.items()
        }

    def snapshot(self) -> State:
        """All that is needed to go on averaging."""
        kept = {name: mean.clone() for name, mean in self._means.items()}
        return {**kept, UPDATES: torch.tensor(self._updates)}

    def restore(self, state: State) -> None:
        """Go on from a snapshot."""
        for name, mean in self._means.items():
            mean.copy_(state[name])
        self._updates = int(state[UPDATES])

    def _put(self, weights: dict[str, Tensor]) -> None:
        now = _tensors(self._network)
        with torch.no_grad():
            for name, tensor in weights.items():
                now[name].copy_(tensor)


def shown(averages: Averages | None) -> AbstractContextManager[None]:
    """The averaged network, or the network as it is."""
    return nullcontext() if averages is None else averages.shown()


def _tensors(network: GraphModule) -> dict[str, Tensor]:
    return dict(network.named_parameters()) | dict(network.named_buffers())
