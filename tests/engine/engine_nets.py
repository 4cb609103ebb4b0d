"""Networks fine enough to meet a target closely, for the tests of plans and targets."""

import itertools

import torch
import torch.nn.functional as F
from engine_harness import Net, Shape, shaken
from torch import Tensor, nn

IMAGES: tuple[Shape, ...] = ((3, 8, 8),)


def _forward(n: Net, x: Tensor) -> Tensor:
    x = F.relu(n.bn(n.a(x)))
    x = F.relu(x + n.two(F.relu(n.one(x))))
    x = F.relu(n.group(n.pw(F.relu(n.dw(x)))))
    return n.fc(F.relu(n.hidden(F.adaptive_avg_pool2d(x, 2).flatten(1))))


def fine_net(width: int = 48) -> nn.Module:
    """Residual block, depthwise, grouped convolution, flatten, two linear layers."""
    return shaken(
        Net(
            _forward,
            a=nn.Conv2d(3, width, 3, padding=1),
            bn=nn.BatchNorm2d(width),
            one=nn.Conv2d(width, 64, 3, padding=1),
            two=nn.Conv2d(64, width, 1),
            dw=nn.Conv2d(width, width, 3, padding=1, groups=width),
            pw=nn.Conv2d(width, 64, 1),
            group=nn.Conv2d(64, 64, 3, padding=1, groups=4),
            hidden=nn.Linear(256, 64),
            fc=nn.Linear(64, 10),
        )
    )


def mlp(*widths: int) -> nn.Module:
    """Linear layers with relu between them."""
    layers: list[nn.Module] = []
    for one, two in itertools.pairwise(widths):
        layers += [nn.Linear(one, two), nn.ReLU()]
    return shaken(nn.Sequential(*layers[:-1]))


def frozen_net() -> nn.Module:
    """Nothing of it may go: a softmax over the channels, and an operator without a rule."""
    return Net(
        lambda n, x: n.c(torch.linalg.matrix_exp(n.b(n.a(x).softmax(1)))),
        a=nn.Conv2d(3, 12, 3),
        b=nn.Conv2d(12, 6, 1),
        c=nn.Conv2d(6, 4, 1),
    )
