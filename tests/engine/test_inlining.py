"""Contexts in a network's code: what they compute is pruned as if they were not there."""

import torch
from engine_harness import Net, analyse, assert_exact, channels, inputs_of, prune, shaken
from torch import Tensor, fx, nn

from prunecli.choices import Criterion
from prunecli.graph.capture import Captured, capture_program
from prunecli.graph.coupling import couple
from prunecli.graph.walk import walk

IMAGES = ((3, 8, 8),)


def network(between) -> nn.Module:
    """conv a -> `between` with the scale s -> conv b."""
    scale = nn.Parameter(torch.zeros(12, 1, 1))
    return shaken(
        Net(
            lambda n, x: n.b(between(n, n.a(x))),
            a=nn.Conv2d(3, 12, 3, padding=1),
            b=nn.Conv2d(12, 5, 1),
            s=scale,
        )
    )


def without_autocast(n: Net, x: Tensor) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        one, two = (x.float() * n.s).relu(), x.sigmoid()
        with torch.enable_grad():
            three = two * n.s
    return one + two * three


def without_gradient(n: Net, x: Tensor) -> Tensor:
    with torch.no_grad():
        weights = (x * n.s).sigmoid()
        with torch.autocast("cpu", enabled=False):
            weights = weights * n.s
    return x * weights


def assert_inlined(captured: Captured, module: nn.Module) -> None:
    """One graph, which computes the same results and gradients."""
    network = captured.network
    assert [part for part in network.modules() if isinstance(part, fx.GraphModule)] == [network]
    gradients = []
    for own in (module, network):
        own.zero_grad()
        own(*captured.inputs).square().sum().backward()
        gradients.append({name: item.grad for name, item in own.named_parameters()})
        own.zero_grad()
    torch.testing.assert_close(network(*captured.inputs), module(*captured.inputs))
    torch.testing.assert_close(*gradients)


def test_autocast_that_is_off() -> None:
    module = network(without_autocast)
    found = analyse(module, IMAGES)
    assert_inlined(found.captured, module)
    pruned = prune(found, channels(0.5), Criterion.RANDOM)
    assert_exact(module, IMAGES, found, pruned)
    assert 1 <= len(pruned.plan.tensors["s"][0]) < 12


def test_no_gradient_in_a_program_from_elsewhere() -> None:
    module = network(without_gradient)
    captured = capture_program(torch.export.export(module, inputs_of(IMAGES, 2)))
    assert_inlined(captured, module)
    coupling = couple(walk(captured))
    assert [group.units.size for group in coupling.groups] == [12]


def test_autocast_that_is_on_stays() -> None:
    def between(n: Net, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return x.relu()

    found = analyse(network(between), IMAGES)
    assert list(found.flow.notes.unknown) == ["wrap_with_autocast"]
