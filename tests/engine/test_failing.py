"""Networks that cannot be captured: one error that names the module, the line and a way out."""

import pytest
import torch
from torch import Tensor, nn

from prunecli.errors import ModelError
from prunecli.graph.capture import capture
from prunecli.graph.inputs import positional


class Branch(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        if x.sum() > 0:  # the line that is meant
            x = x * 2
        return x


class Foreign(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(super().forward(x).detach().numpy())


@pytest.mark.parametrize(
    ("layer", "line", "hint"),
    [
        (Branch, "if x.sum() > 0:  # the line that is meant", "torch.where"),
        (Foreign, "return torch.from_numpy(super().forward(x)", "instead of NumPy"),
    ],
)
def test_the_module_and_the_line_are_named(
    layer: type[nn.Linear], line: str, hint: str, capfd: pytest.CaptureFixture[str]
) -> None:
    module = nn.Sequential(nn.Linear(4, 6), nn.Sequential(nn.ReLU(), layer(6, 2)))
    with pytest.raises(ModelError) as caught:
        capture(module, positional((torch.randn(2, 4),)))
    assert caught.value.message.startswith(
        "model: torch.export cannot capture 1.1 (test_failing.py:"
    )
    assert line in caught.value.message
    assert "\n" not in caught.value.message
    assert hint in (caught.value.hint or "")
    assert capfd.readouterr() == ("", ""), "torch prints whole graphs where it fails"
