"""Scores equal a formula written out by hand, layer by layer."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from engine_harness import Analysis, Net, Shape, analyse, scores, shaken
from engine_nets import IMAGES, fine_net, mlp
from torch import Tensor, nn

from prunecli.choices import Criterion
from prunecli.importance.mixing import normalised

Parts = dict[str, list[list[Tensor]]]
"""Group's first layer -> per unit, the pieces of tensors that go with it."""


def fine_parts(net: nn.Module) -> Parts:
    p = {name: tensor.detach() for name, tensor in net.named_parameters()}

    def whole(layer: str, i: int) -> list[Tensor]:
        return [p[f"{layer}.weight"][i], p[f"{layer}.bias"][i]]

    stream = [
        [*whole("a", i), *whole("bn", i), p["one.weight"][:, i], *whole("two", i),
         *whole("dw", i), p["pw.weight"][:, i]]
        for i in range(48)
    ]  # fmt: skip
    inner = [[*whole("one", i), p["two.weight"][:, i]] for i in range(64)]
    into = [
        [*whole("pw", i), p["group.weight"][i // 16 * 16 : (i // 16 + 1) * 16, i % 16]]
        for i in range(64)
    ]
    out = [[*whole("group", i), p["hidden.weight"][:, 4 * i : 4 * i + 4]] for i in range(64)]
    last = [[*whole("hidden", i), p["fc.weight"][:, i]] for i in range(64)]
    return {"a": stream, "one": inner, "pw": into, "group": out, "hidden": last}


def mlp_parts(net: nn.Module) -> Parts:
    p = {name: tensor.detach() for name, tensor in net.named_parameters()}
    return {
        str(layer): [
            [p[f"{layer}.weight"][i], p[f"{layer}.bias"][i], p[f"{layer + 2}.weight"][:, i]]
            for i in range(len(p[f"{layer}.bias"]))
        ]
        for layer in (0, 2)
    }


def whole_groups() -> nn.Module:
    """Group norm's four groups are cut as wholes: log-sum-exp takes each of them together."""
    return shaken(
        Net(
            lambda n, x: n.b(F.relu(n.g(n.a(x))).unflatten(1, (4, 3)).logsumexp(2)),
            a=nn.Conv2d(3, 8, 3),
            g=nn.Conv2d(8, 12, 1, groups=4),
            b=nn.Conv2d(4, 5, 1),
        )
    )


def whole_parts(net: nn.Module) -> Parts:
    p = {name: tensor.detach() for name, tensor in net.named_parameters()}
    return {
        "a": [
            [p["a.weight"][2 * i : 2 * i + 2], p["a.bias"][2 * i : 2 * i + 2],
             p["g.weight"][3 * i : 3 * i + 3], p["g.bias"][3 * i : 3 * i + 3],
             p["b.weight"][:, i]]
            for i in range(4)
        ]
    }  # fmt: skip


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[Shape, ...], Callable[..., Parts]]] = {
    "fine": (fine_net, IMAGES, fine_parts),
    "mlp": (lambda: mlp(10, 16, 12, 4), ((10,),), mlp_parts),
    "whole groups": (whole_groups, IMAGES, whole_parts),
}

SIZES: dict[Criterion, Callable[[list[Tensor]], float]] = {
    Criterion.L1: lambda pieces: sum(float(piece.double().abs().sum()) for piece in pieces),
    Criterion.L2: lambda pieces: (
        sum(float(piece.double().square().sum()) for piece in pieces) ** 0.5
    ),
}


@pytest.mark.parametrize("criterion", SIZES)
@pytest.mark.parametrize(("make", "shapes", "parts"), NETS.values(), ids=NETS)
def test_magnitudes(
    make: Callable[[], nn.Module],
    shapes: tuple[Shape, ...],
    parts: Callable[[nn.Module], Parts],
    criterion: Criterion,
) -> None:
    module = make()
    found = analyse(module, shapes)
    got = scores(found, criterion)
    by_name = {group.name: got[group.units] for group in found.coupling.groups}
    expected = parts(module)
    assert set(by_name) == set(expected)
    for name, units in expected.items():
        raw = np.array([SIZES[criterion](pieces) for pieces in units])
        np.testing.assert_allclose(by_name[name], raw / raw.max(), rtol=1e-6)


@pytest.fixture(scope="module")
def found() -> Analysis:
    return analyse(fine_net(), IMAGES)


@pytest.mark.parametrize("criterion", [Criterion.L1, Criterion.L2, Criterion.RANDOM])
def test_every_group_has_largest_one(found: Analysis, criterion: Criterion) -> None:
    got = scores(found, criterion, 3)
    for group in found.coupling.groups:
        assert got[group.units].max() == pytest.approx(1.0, abs=1e-9)


def test_random_scores_follow_the_seed(found: Analysis) -> None:
    one, two, other = (scores(found, Criterion.RANDOM, seed) for seed in (5, 5, 6))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


def test_a_group_of_zeros_stays_zero(found: Analysis) -> None:
    raw = np.ones(found.coupling.count)
    raw[found.coupling.groups[0].units] = 0.0
    got = normalised(raw, found.coupling)
    assert (got[found.coupling.groups[0].units] == 0.0).all()
    assert (got[found.coupling.groups[1].units] == 1.0).all()


def test_large_tensors_are_summed_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    found = analyse(fine_net(), IMAGES)
    once = scores(found, Criterion.L2)
    monkeypatch.setattr("prunecli.importance.sums.CHUNK_ELEMENTS", 100)
    np.testing.assert_allclose(scores(found, Criterion.L2), once, rtol=1e-6)


def test_scaling_the_network_changes_no_score() -> None:
    plain, scaled = mlp(10, 32, 32, 4), mlp(10, 32, 32, 4)
    with torch.no_grad():
        for tensor in scaled.parameters():
            tensor.mul_(100.0)
    one, two = (scores(analyse(net, ((10,),)), Criterion.L2) for net in (plain, scaled))
    np.testing.assert_allclose(one, two, rtol=1e-5)
