"""Parameters that only training uses are no part of a captured network."""

import torch
from torch import Tensor, nn

from prunecli.graph.capture import capture


class WithSideHead(nn.Module):
    """`side` runs in training only, as the auxiliary heads of googlenet do."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.side = nn.Conv2d(4, 2, 1)
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        return self.head(x) + self.side(x) if self.training else self.head(x)


def test_parameters_of_training_are_dropped_and_statistics_stay() -> None:
    torch.manual_seed(0)
    model = WithSideHead()
    inputs = (torch.randn(2, 3, 8, 8),)
    network = capture(model, inputs).network
    assert {name for name, _ in network.named_parameters()} == {
        "body.0.weight", "body.0.bias", "body.1.weight", "body.1.bias", "head.weight", "head.bias"
    }  # fmt: skip
    assert {name for name, _ in network.named_buffers()} >= {
        "body.1.running_mean", "body.1.running_var"
    }  # fmt: skip
    assert torch.equal(network(*inputs), model(*inputs))
    assert hasattr(model, "side"), "the model itself is left alone"
