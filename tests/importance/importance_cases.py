"""Small networks in double precision, examples for them, and what goes with each of their units,
written out by hand."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunecli.graph.capture import Captured, capture
from prunecli.graph.coupling import Coupling, couple
from prunecli.graph.inputs import positional
from prunecli.graph.walk import Flow, walk
from prunecli.importance.calibration import Calibration
from prunecli.tasks import CLASSIFICATION, REGRESSION, Task

EXAMPLES = 70
"""Two whole batches and a rest."""

Masks = dict[str, Tensor]
"""Parameter -> True where an element belongs to the unit."""


class ConvNet(nn.Module):
    """Batch norms, a residual sum of a layer's input and output, depthwise, grouped, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(6)
        self.b = nn.Conv2d(6, 6, 3, padding=1)
        self.dw = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.g = nn.Conv2d(6, 8, 1, groups=2)
        self.bn2 = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.a(x)))
        x = F.relu(x + self.b(x))
        x = F.relu(self.bn2(self.g(self.dw(x))))
        return self.fc(x.mean((2, 3)))

    def reads(self, x: Tensor) -> dict[str, list[Tensor]]:
        """First layer of a group -> the values that something reads of it."""
        one = F.relu(self.bn1(self.a(x)))
        two = F.relu(one + self.b(one))
        three = self.dw(two)
        last = F.relu(self.bn2(self.g(three))).mean((2, 3))
        return {"a": [one, two, three], "g": [last], "outputs": [self.fc(last)]}


class Mlp(nn.Module):
    """Three linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(10, 7), nn.Linear(7, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.tanh(self.b(F.relu(self.a(x)))))

    def reads(self, x: Tensor) -> dict[str, list[Tensor]]:
        """See `ConvNet`."""
        one = F.relu(self.a(x))
        two = torch.tanh(self.b(one))
        return {"a": [one], "b": [two], "outputs": [self.c(two)]}


class Lstm(nn.Module):
    """Two layers in both directions, averaged over time."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(5, 4, num_layers=2, bidirectional=True, batch_first=True)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.rnn(x)[0].mean(1))

    def reads(self, x: Tensor) -> dict[str, list[Tensor]]:
        """See `ConvNet`."""
        mean = self.rnn(x)[0].mean(1)
        return {"rnn.weight_ih_l0": [mean], "outputs": [self.fc(mean)]}


@dataclass(frozen=True)
class Case:
    """A network, captured, and the truth about it.

    Attributes:
        entries: group's first layer -> per unit, its places along axis 1 of what is read of it.
    """

    module: nn.Module
    captured: Captured
    flow: Flow
    coupling: Coupling
    calibration: Calibration
    parts: dict[str, list[Masks]]
    entries: dict[str, list[list[int]]]


def masks(module: nn.Module, *places: tuple[str, object]) -> Masks:
    """`places`: parameter and index, several times for one parameter too."""
    parameters = dict(module.named_parameters())
    found: Masks = {}
    for name, index in places:
        mask = found.setdefault(name, torch.zeros_like(parameters[name], dtype=torch.bool))
        mask[index] = True
    return found


EVERY = slice(None)


def conv_parts(net: nn.Module) -> dict[str, list[Masks]]:
    stream = [
        masks(
            net, ("a.weight", i), ("bn1.weight", i), ("bn1.bias", i), ("b.weight", i),
            ("b.weight", (EVERY, i)), ("b.bias", i), ("dw.weight", i), ("dw.bias", i),
            ("g.weight", (slice(i // 3 * 4, i // 3 * 4 + 4), i % 3)),
        )
        for i in range(6)
    ]  # fmt: skip
    out = [
        masks(
            net, ("g.weight", i), ("g.bias", i), ("bn2.weight", i), ("bn2.bias", i),
            ("fc.weight", (EVERY, i)),
        )
        for i in range(8)
    ]  # fmt: skip
    return {"a": stream, "g": out}


def mlp_parts(net: nn.Module) -> dict[str, list[Masks]]:
    return {
        one: [
            masks(net, (f"{one}.weight", i), (f"{one}.bias", i), (f"{two}.weight", (EVERY, i)))
            for i in range(width)
        ]
        for one, two, width in (("a", "b", 7), ("b", "c", 6))
    }


def lstm_parts(net: nn.Module) -> dict[str, list[Masks]]:
    units = []
    for i in range(4):
        places: list[tuple[str, object]] = [
            ("fc.weight", (EVERY, i)),
            ("fc.weight", (EVERY, 4 + i)),
        ]
        for end in ("l0", "l0_reverse", "l1", "l1_reverse"):
            for gate in range(4):
                row = 4 * gate + i
                places += [
                    (f"rnn.{kind}_{end}", row)
                    for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
                ]
            places.append((f"rnn.weight_hh_{end}", (EVERY, i)))
            if end.startswith("l1"):
                places += [(f"rnn.weight_ih_{end}", (EVERY, i + 4 * side)) for side in (0, 1)]
        units.append(masks(net, *places))
    return {"rnn.weight_ih_l0": units}


_BUILD: dict[
    str,
    tuple[Callable[[], nn.Module], tuple[int, ...], Task, Callable[..., dict[str, list[Masks]]]],
] = {
    "conv": (ConvNet, (3, 6, 6), CLASSIFICATION, conv_parts),
    "mlp": (Mlp, (10,), REGRESSION, mlp_parts),
    "lstm": (Lstm, (7, 5), CLASSIFICATION, lstm_parts),
}

NAMES = tuple(_BUILD)


def make(name: str) -> Case:
    """The same network and examples every time."""
    build, shape, task, parts = _BUILD[name]
    torch.manual_seed(3)
    module = build().double()
    for tensor in [*module.parameters(), *module.buffers()]:
        if tensor.is_floating_point() and tensor.dim() == 1:
            tensor.data.copy_(0.5 + torch.rand_like(tensor))
    module.eval()
    inputs = torch.randn(EXAMPLES, *shape, dtype=torch.float64)
    outputs = module(inputs[:1]).shape[1]
    targets = (
        torch.randint(0, outputs, (EXAMPLES,))
        if task is CLASSIFICATION
        else torch.randn(EXAMPLES, outputs, dtype=torch.float64)
    )
    captured = capture(module, positional((inputs[:2],)))
    flow = walk(captured)
    found = parts(module)
    entries = {group: [[i] for i in range(len(units))] for group, units in found.items()}
    if name == "lstm":
        entries = {group: [[i, 4 + i] for i in range(4)] for group in found}
    return Case(
        module,
        captured,
        flow,
        couple(flow),
        Calibration((inputs,), (targets,), task),
        found,
        entries,
    )
