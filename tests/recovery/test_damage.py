"""How far a network is from the original, and what rate that gives."""

import pytest
import torch
from torch import Tensor, nn

from prunecli.graph.capture import capture
from prunecli.graph.inputs import positional
from prunecli.recovery.damage import damage
from prunecli.recovery.rates import default_lr
from prunecli.tuning import TrainConfig


class Net(nn.Module):
    """Two outputs of numbers, and one of whole numbers that counts for nothing."""

    def __init__(self, factor: float, shift: float) -> None:
        super().__init__()
        self.factor, self.shift = (
            nn.Parameter(torch.tensor(factor)),
            nn.Parameter(torch.tensor(shift)),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.factor * x + self.shift, x + self.shift, x.argmax(1)


def graph(factor: float, shift: float) -> torch.fx.GraphModule:
    return capture(Net(factor, shift).eval(), positional((torch.randn(2, 3),))).network


def test_a_share_of_the_variance() -> None:
    examples = (torch.tensor([[1.0, 2.0, 3.0], [3.0, 4.0, 9.0]]),)
    # Twice x against x, and 1 more against it; x varies by 1, 1 and 9 around its means.
    apart = (1 + 4 + 9 + 9 + 16 + 81) + 0
    spread = 2 * 2 * (1 + 1 + 9)
    assert damage(graph(2.0, 0.0), graph(1.0, 0.0), examples) == pytest.approx(apart / spread)
    assert damage(graph(1.0, 1.0), graph(1.0, 0.0), examples) == pytest.approx(12 / spread)
    assert damage(graph(1.0, 0.0), graph(1.0, 0.0), examples) == 0.0
    assert damage(graph(2.0, 0.0), graph(1.0, 0.0), (torch.ones(4, 3),)) == 1.0, "nothing varies"


@pytest.mark.parametrize(
    ("masked", "lost", "rate"),
    [
        (False, 0.11, 0.01),
        (False, 2.0, 0.01),
        (False, 0.055, 0.0025),
        (False, 0.0, 0.0005),
        (True, 0.08, 0.02),
        (True, 0.04, 0.005),
    ],
)
def test_the_rate_follows_the_damage(masked: bool, lost: float, rate: float) -> None:
    assert default_lr(TrainConfig(), masked=masked, damage=lost) == pytest.approx(rate)
