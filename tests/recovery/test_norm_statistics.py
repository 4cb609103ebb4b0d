"""Statistics of batch norms against those that PyTorch gathers itself."""

import torch
from tiny_training import captured
from torch import Tensor, nn

from prunecli.progress import SilentReporter
from prunecli.recovery.norm_statistics import reestimate


class Chain(nn.Module):
    """Two norms in a row with weights between, one that is called twice, one without statistics."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one = nn.Conv2d(3, 6, 3)
        self.norm = nn.BatchNorm2d(6)
        self.two = nn.Conv2d(6, 6, 3)
        self.last = nn.BatchNorm2d(6)
        self.twice = nn.BatchNorm2d(6)
        self.free = nn.BatchNorm2d(6, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.last(self.two(self.norm(self.one(x)).relu()))
        found: Tensor = self.free(self.twice(self.twice(x).relu()))
        return found


def gathered(module: Chain, examples: Tensor) -> None:
    """One pass in training mode, in which each norm sees what those before it send on."""
    for norm in (module.norm, module.last):
        norm.momentum = 1.0
        norm.train()
    with torch.no_grad():
        module(examples)
    module.eval()


def test_statistics_are_those_of_a_training_pass() -> None:
    module, examples = Chain().eval(), torch.randn(32, 3, 8, 8) * 3 + 1
    network = captured(module, 3, 8, 8)
    before = {name: item.clone() for name, item in network.named_parameters()}
    assert reestimate(network, (examples,), SilentReporter()) == 2
    gathered(module, examples)
    for name in ("norm", "last", "twice"):
        for part in ("running_mean", "running_var"):
            found, wanted = (net.get_buffer(f"{name}.{part}") for net in (network, module))
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(item, before[name]) for name, item in network.named_parameters())
    torch.testing.assert_close(network(examples), module(examples), rtol=1e-4, atol=1e-4)


def test_a_single_value_has_no_variance() -> None:
    network = captured(nn.BatchNorm1d(4), 4)
    reestimate(network, (torch.randn(1, 4),), SilentReporter())
    assert network.get_buffer("running_var").tolist() == [1.0] * 4
