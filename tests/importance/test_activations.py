"""Where units are looked at."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunecli.choices import Criterion, Strategy
from prunecli.errors import ModelError
from prunecli.graph.capture import capture
from prunecli.graph.coupling import Coupling, couple
from prunecli.graph.inputs import positional
from prunecli.graph.walk import walk
from prunecli.importance.calibration import Calibration
from prunecli.importance.units import score_units
from prunecli.progress import SilentReporter
from prunecli.removal import mixture
from prunecli.tasks import CLASSIFICATION

EXAMPLES = 40


def judged(
    module: nn.Module, inputs: Tensor, criterion: Criterion = Criterion.ACTIVATION
) -> tuple[np.ndarray, Coupling]:
    captured = capture(module, positional((inputs[:3],)))
    flow = walk(captured)
    coupling = couple(flow)
    targets = torch.arange(len(inputs)) % 3
    calibration = Calibration((inputs,), (targets,), CLASSIFICATION)
    found = score_units(
        captured, flow, coupling, Strategy.NEURON, mixture(criterion), calibration, 0,
        SilentReporter(),
    )  # fmt: skip
    return found.raw, coupling


class Attention(nn.Module):
    """Two heads of four, queries and keys cut apart from values."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(6, 8) for _ in range(4))
        self.out = nn.Linear(8, 6)
        self.head = nn.Linear(6, 3)

    def parts(self, x: Tensor) -> tuple[Tensor, ...]:
        q, k, v = (
            item(x).unflatten(-1, (2, 4)).transpose(1, 2) for item in (self.q, self.k, self.v)
        )
        return q, k, v, F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((x + self.out(self.parts(x)[3])).mean(1))


def test_queries_and_keys_are_looked_at_where_they_meet() -> None:
    torch.manual_seed(0)
    module = Attention().double()
    x = torch.randn(EXAMPLES, 5, 6, dtype=torch.float64)
    raw, coupling = judged(module, x)
    with torch.no_grad():
        q, k, _, mixed = (item.abs() for item in module.parts(x))
    by_name = {group.name: raw[group.units] for group in coupling.groups}
    both = (q.mean((0, 2)) + k.mean((0, 2))) / 2  # head, channel
    np.testing.assert_allclose(by_name["q"], both.reshape(-1).numpy(), rtol=1e-9)
    np.testing.assert_allclose(by_name["v"], mixed.mean((0, 1)).numpy(), rtol=1e-9)


class Unread(nn.Module):
    """No contraction reads the channels of `a`: the largest of them is taken."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(5, 6), nn.Linear(1, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x).amax(1, keepdim=True))


def test_what_no_contraction_reads_is_looked_at_where_it_is_made() -> None:
    torch.manual_seed(0)
    module = Unread().double()
    x = torch.randn(EXAMPLES, 5, dtype=torch.float64)
    raw, _ = judged(module, x)
    np.testing.assert_allclose(raw, module.a(x).detach().abs().mean(0).numpy(), rtol=1e-9)


class Overwritten(nn.Module):
    """Works in place on what a layer has read."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        y = self.b(x)
        x.mul_(0.0)
        return self.c(x + y)


def test_values_that_are_overwritten_are_refused() -> None:
    torch.manual_seed(0)
    with pytest.raises(ModelError, match="is overwritten after it was read"):
        judged(Overwritten(), torch.randn(EXAMPLES, 5))


class InPlace(nn.Module):
    """Works in place before layers read, and on its input."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x.sub_(0.5)
        x = F.relu_(self.a(x))
        return self.c(F.relu_(self.b(x).add_(1.0)))


@pytest.mark.parametrize("criterion", [Criterion.APOZ, Criterion.TAYLOR])
def test_work_in_place_before_it_is_read_does_not_matter(criterion: Criterion) -> None:
    torch.manual_seed(0)
    module = InPlace().double()
    x = torch.randn(EXAMPLES, 5, dtype=torch.float64)
    given = x.clone()
    raw, coupling = judged(module, x, criterion)
    assert torch.equal(x, given)
    again, _ = judged(module, x, criterion)
    assert np.array_equal(raw, again)
    if criterion is Criterion.APOZ:
        with torch.no_grad():
            one = F.relu(module.a(x - 0.5))
            two = F.relu(module.b(one) + 1.0)
        for group, value in zip(coupling.groups, (one, two), strict=True):
            share = (value > 0).double().mean(0).numpy()
            np.testing.assert_allclose(raw[group.units], share, rtol=1e-9)
