"""Tiny networks and data for the tests of what accompanies training.

Their activations have a slope everywhere, so that every weight has a gradient.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.nn import functional as F

from prunecli.choices import DeviceName, OptimizerName, TaskName
from prunecli.data import DataSet, Preprocess, Split
from prunecli.progress import SilentReporter
from prunecli.recovery import Teacher, TrainResult, finetune
from prunecli.recovery.companion import Companion, Setting, State, chain
from prunecli.recovery.masking import Masks
from prunecli.tasks import CLASSIFICATION, Labels
from prunecli.tuning import TrainConfig


def captured(module: nn.Module, *shape: int) -> GraphModule:
    """The graph of `module` in evaluation mode, with a free batch."""
    example = torch.randn(4, *shape)
    program = torch.export.export(
        module.eval(), (example,), dynamic_shapes=({0: torch.export.Dim.AUTO},)
    )
    network = program.module(check_guards=False)
    assert isinstance(network, GraphModule)
    return network


class Tied(nn.Module):
    """Two layers with one weight, which is known by two names."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(6, 6)
        self.two = nn.Linear(6, 6)
        self.two.weight = self.one.weight
        self.last = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.last(F.silu(self.two(F.silu(self.one(x)))))
        return found


def mlp() -> GraphModule:
    torch.manual_seed(0)
    return captured(nn.Sequential(nn.Linear(6, 16), nn.SiLU(), nn.Linear(16, 3)), 6)


def tied() -> GraphModule:
    torch.manual_seed(0)
    return captured(Tied(), 6)


def cnn() -> GraphModule:
    """Runs channels last on the CPU; with batch norm, a depthwise convolution and dropout."""
    torch.manual_seed(0)
    return captured(
        nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.SiLU(),
            nn.Conv2d(8, 8, 3, padding=1, groups=8),
            nn.Conv2d(8, 6, 1),
            nn.SiLU(),
            nn.Dropout(0.1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(6, 3),
        ),
        3,
        8,
        8,
    )


def data_for(network: GraphModule, count: int = 48, seed: int = 1) -> DataSet:
    """Three classes, told apart by the first feature or channel."""
    shape = (6,) if network.get_parameter(_first(network)).dim() == 2 else (3, 8, 8)

    def split(name: str, size: int, own: int) -> Split:
        generator = torch.Generator().manual_seed(own)
        targets = torch.randint(0, 3, (size,), generator=generator)
        inputs = torch.randn(size, *shape, generator=generator)
        inputs[:, 0] += 2.0 * targets.reshape(-1, *(1,) * (len(shape) - 1))
        return Split(name, (inputs,), (targets,))

    return DataSet(
        CLASSIFICATION,
        split("train", count, seed),
        split("choose", 30, seed + 1),
        split("validation", 30, seed + 2),
        (Preprocess(image=False),),
        (Labels(TaskName.CLASSIFICATION, ("a", "b", "c")),),
        (),
        (),
    )


def _first(network: GraphModule) -> str:
    return next(name for name, _ in network.named_parameters())


def weight_names(network: GraphModule) -> list[str]:
    """All names of parameters with more than one axis."""
    named = network.named_parameters(remove_duplicate=False)
    return [name for name, item in named if item.dim() > 1]


def random_masks(network: GraphModule, share: float = 0.6, seed: int = 3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(network.get_parameter(name).shape, generator=generator) > share
        for name in weight_names(network)
    }


def smallest(network: GraphModule, final: float) -> Callable[[float, Masks], Masks]:
    """Chooses per tensor: so many of the smallest weights go, those that are gone first."""

    def choose(share: float, current: Masks) -> Masks:
        masks = {}
        for name in weight_names(network):
            size = network.get_parameter(name).detach().abs().reshape(-1).clone()
            if name in current:
                size[~current[name].reshape(-1)] = -1.0
            mask = torch.ones(size.numel(), dtype=torch.bool)
            mask[size.argsort(stable=True)[: round(share * final * size.numel())]] = False
            masks[name] = mask.reshape(network.get_parameter(name).shape)
        return masks

    return choose


class Watcher:
    """Writes down what the network is at every step."""

    def __init__(self) -> None:
        self.weights: list[dict[str, Tensor]] = []
        self.gradients: list[dict[str, Tensor]] = []
        self.rates: list[float] = []

    def begin(self, setting: Setting) -> None:
        self.setting = setting

    def penalty(self) -> Tensor | None:
        return None

    def before_step(self, step: int, steps: int) -> None:
        assert (step, steps) == (len(self.weights), self.setting.steps)
        self.rates.append(self.setting.optimizer.param_groups[0]["lr"])
        self.gradients.append(
            {name: item.grad.clone() for name, item in self._named() if item.grad is not None}
        )

    def after_step(self, step: int, steps: int) -> None:
        self.weights.append({name: item.detach().clone() for name, item in self._named()})

    def counts(self, done: int, steps: int) -> bool:
        return True

    def snapshot(self) -> State:
        return {}

    def restore(self, state: State) -> None:
        pass

    def _named(self) -> list[tuple[str, nn.Parameter]]:
        return list(self.setting.network.named_parameters(remove_duplicate=False))


SGD = TrainConfig(
    epochs=3, lr=0.1, batch_size=8, weight_decay=0.01, momentum=0.9, device=DeviceName.CPU
)
ADAMW = TrainConfig(
    epochs=3,
    lr=0.02,
    batch_size=8,
    optimizer=OptimizerName.ADAMW,
    weight_decay=0.1,
    device=DeviceName.CPU,
)


def train(
    network: GraphModule,
    config: TrainConfig,
    *companions: Companion,
    data: DataSet | None = None,
    teacher: GraphModule | None = None,
    **given: Any,
) -> TrainResult:
    return finetune(
        network,
        data_for(network) if data is None else data,
        config,
        SilentReporter(),
        teacher=None if teacher is None else Teacher(teacher),
        companion=chain(*companions),
        **given,
    )
