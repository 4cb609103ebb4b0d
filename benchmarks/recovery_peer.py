"""The same cuts by Torch-Pruning, for `recovery.py`.

    pip install torch-pruning==1.6.1

Global pruning in many small steps until the MACs are met, as its documentation shows, by each of
its usual criteria. What comes out is captured, judged and trained by the same code as ours, so
that only the cut and what is done before and beside the training differ.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch_pruning as tp
from torch import nn
from torch.nn import functional as F

from prunecli.config import ModelConfig
from prunecli.data import DataSet
from prunecli.graph.capture import Captured, capture
from prunecli.graph.inputs import example_inputs
from prunecli.loading import load_model
from prunecli.tasks import Tensors

STEPS = 200
LABELLED = 512
"""Examples for the gradients of Taylor."""

MOST_GONE = 0.95

CRITERIA: dict[str, Callable[[], Any]] = {
    "group L2": lambda: tp.importance.GroupMagnitudeImportance(p=2),
    "group L1": lambda: tp.importance.GroupMagnitudeImportance(p=1),
    "BN scale": tp.importance.BNScaleImportance,
    "group Taylor": tp.importance.GroupTaylorImportance,
}


@dataclass(frozen=True)
class Peer:
    """What one criterion left.

    Attributes:
        macs, params: shares of the original's.
    """

    captured: Captured
    macs: float
    params: float


def cut(config: ModelConfig, data: DataSet, share: float, criterion: str) -> Peer:
    """To at most `share` of the MACs.

    Raises:
        RuntimeError: it cannot be reached.
    """
    module = load_model(config).module
    assert module is not None
    module.eval()
    example = torch.zeros(1, 3, 32, 32)
    macs, params = tp.utils.count_ops_and_params(module, example)
    pruner = tp.pruner.BasePruner(
        module,
        example,
        importance=CRITERIA[criterion](),
        global_pruning=True,
        pruning_ratio=MOST_GONE,
        iterative_steps=STEPS,
        ignored_layers=[layer for layer in module.modules() if isinstance(layer, nn.Linear)],
    )
    now, left = macs, params
    for _ in range(STEPS):
        if now <= share * macs:
            break
        if criterion == "group Taylor":
            _differentiate(module, data)
        pruner.step()
        now, left = tp.utils.count_ops_and_params(module, example)
    else:
        raise RuntimeError(f"{criterion}: stopped at {now / macs:.1%} of the MACs")
    module.zero_grad()
    return Peer(capture(module, example_inputs((2, 3, 32, 32))), now / macs, left / params)


def _differentiate(module: nn.Module, data: DataSet) -> None:
    inputs, targets = drawn(data, LABELLED)
    module.zero_grad()
    for part in torch.arange(LABELLED).split(128):
        F.cross_entropy(module(inputs[0][part]), targets[0][part], reduction="sum").backward()


def drawn(data: DataSet, number: int) -> tuple[Tensors, Tensors]:
    """Training examples, and those that reconstruction sees with seed 0 where there are 1,024."""
    order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(0))[:number]
    inputs = data.prepare([item[order] for item in data.train.inputs])
    return inputs, tuple(item[order] for item in data.train.targets)
