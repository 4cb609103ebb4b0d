"""Scores of blocks against their definitions, computed with hooks on the eager modules."""

import copy
from collections.abc import Callable
from dataclasses import replace

import layers_nets as nets
import numpy as np
import pytest
import torch
from layers_nets import Named, blocks_of, captured_of, replaced
from torch import Tensor, nn

from prunecli.choices import Criterion
from prunecli.errors import ConfigError, TrainingError
from prunecli.graph.capture import Captured
from prunecli.graph.walk import walk
from prunecli.importance import blocks
from prunecli.importance.blocks import score_blocks
from prunecli.importance.calibration import Calibration
from prunecli.progress import SilentReporter
from prunecli.removal import Mixture, mixture
from prunecli.tasks import CLASSIFICATION, REGRESSION

IMAGE = (3, 8, 8)
TEXT = (7, 6)


def scores(
    captured: Captured, mix: Mixture, calibration: Calibration | None, seed: int = 0
) -> np.ndarray:
    blocks = blocks_of(captured)
    return score_blocks(captured, walk(captured), blocks, mix, calibration, seed, SilentReporter())


def examples(shape: tuple[int, ...], classes: int, number: int = 70) -> Calibration:
    """More than one batch."""
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(number, *shape, generator=generator)
    targets = torch.randint(0, classes, (number,), generator=generator)
    return Calibration((inputs,), (targets,), CLASSIFICATION)


def cosine(one: list[float], two: list[float]) -> float:
    product = sum(a * b for a, b in zip(one, two, strict=True))
    first, second = sum(a * a for a in one) ** 0.5, sum(b * b for b in two) ** 0.5
    if first == 0.0 and second == 0.0:
        return 1.0
    return product / (first * second) if first > 0.0 and second > 0.0 else 0.0


def influence(model: nn.Module, path: str, inputs: Tensor, axis: int) -> float:
    """Of a module: every position's cosine, in a loop."""
    seen: list[Tensor] = []

    def before(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        seen.append(given[0].clone())

    part = model.get_submodule(path)
    handles = [
        part.register_forward_pre_hook(before),
        part.register_forward_hook(lambda module, given, found: seen.append(found.clone())),
    ]
    with torch.no_grad():
        model(inputs)
    for handle in handles:
        handle.remove()
    rows = [item.movedim(axis, -1).flatten(0, -2).double().tolist() for item in seen]
    found = [cosine(*pair) for pair in zip(*rows, strict=True)]
    return 1.0 - sum(found) / len(found)


SIMILAR = [
    pytest.param(nets.resnet, IMAGE, 1, 5, id="resnet"),
    pytest.param(
        lambda: nets.convs(nets.ConvNeXt(8), nets.ConvNeXt(8)), IMAGE, 1, 5, id="convnext"
    ),
    # Positions have labels too, in their table and in the mixing over tokens.
    *(
        pytest.param(lambda kind=kind: nets.encoder(kind), TEXT, 2, 4, id=kind.__name__)
        for kind in (nets.PreNorm, nets.PostNorm, nets.Mixer)
    ),
]


@pytest.mark.parametrize(("build", "shape", "axis", "classes"), SIMILAR)
def test_similarity_is_the_mean_angle(
    build: Callable[[], nn.Module], shape: tuple[int, ...], axis: int, classes: int
) -> None:
    model = build()
    captured = captured_of(model, shape)
    given = examples(shape, classes)
    kept = given.inputs[0].clone()
    found = scores(captured, mixture(Criterion.SIMILARITY), given)
    names = [block.name for block in blocks_of(captured)]
    expected = [influence(model, name, kept, axis) for name in names]
    np.testing.assert_allclose(found, expected, 0, 1e-6)
    assert len({round(score, 4) for score in found}) == len(names)
    assert torch.equal(given.inputs[0], kept)


@pytest.mark.parametrize(("build", "shape", "axis", "classes"), SIMILAR)
def test_loss_is_what_leaving_out_costs(
    build: Callable[[], nn.Module], shape: tuple[int, ...], axis: int, classes: int
) -> None:
    model = build()
    captured = captured_of(model, shape)
    given = examples(shape, classes)
    found = scores(captured, mixture(Criterion.LOSS), given)

    def loss(model: nn.Module) -> float:
        with torch.no_grad():
            rows = torch.cat([model(item[None].clone()) for item in given.inputs[0]]).double()
        picked = rows.log_softmax(1)[torch.arange(len(rows)), given.targets[0]]
        return -float(picked.mean())

    whole = loss(model)
    names = [block.name for block in blocks_of(captured)]
    expected = [loss(replaced(copy.deepcopy(model), name)) - whole for name in names]
    np.testing.assert_allclose(found, expected, 0, 1e-6)
    assert np.abs(found).min() > 1e-4


def test_loss_of_regression() -> None:
    torch.manual_seed(0)
    model = Named(lambda net, x: net.head(x + net.a(x)), a=nn.Linear(6, 6), head=nn.Linear(6, 2))
    captured = captured_of(model.eval(), (6,))
    inputs, targets = torch.randn(70, 6), torch.randn(70, 2)
    found = scores(
        captured, mixture(Criterion.LOSS), Calibration((inputs,), (targets,), REGRESSION)
    )
    with torch.no_grad():
        losses = [
            float((model.head(item).double() - targets).square().mean())
            for item in (inputs, inputs + model.a(inputs))
        ]
    np.testing.assert_allclose(found, [losses[0] - losses[1]], 0, 1e-6)


def test_without_labels_the_whole_example_counts() -> None:
    """What one number per example is added to has no labels, if it is the network's input."""
    torch.manual_seed(0)
    model = Named(
        lambda net, x: net.head(x + net.a(x.flatten(1))[:, :, None]),
        a=nn.Linear(42, 1),
        head=nn.Linear(6, 2),
    )
    captured = captured_of(model.eval(), TEXT)
    given = examples(TEXT, 2)
    with torch.no_grad():
        out = given.inputs[0] + model.a(given.inputs[0].flatten(1))[:, :, None]
    pairs = zip(given.inputs[0].flatten(1).tolist(), out.flatten(1).tolist(), strict=True)
    expected = 1.0 - sum(cosine(*pair) for pair in pairs) / len(out)
    found = scores(captured, mixture(Criterion.SIMILARITY), given)
    np.testing.assert_allclose(found, [expected], 0, 1e-6)


def test_sums_in_place_are_compared_with_what_came_in() -> None:
    def forward(net: nn.Module, x: Tensor) -> Tensor:
        x = net.stem(x)
        x += net.a(x)
        return net.head(x)

    torch.manual_seed(0)
    layers = {"stem": nn.Linear(6, 6), "a": nn.Linear(6, 6), "head": nn.Linear(6, 2)}
    model = Named(forward, **layers).eval()
    captured = captured_of(model, (6,))
    given = examples((6,), 2)
    with torch.no_grad():
        x = model.stem(given.inputs[0])
        pairs = zip(x.tolist(), (x + model.a(x)).tolist(), strict=True)
    expected = 1.0 - sum(cosine(*pair) for pair in pairs) / len(x)
    found = scores(captured, mixture(Criterion.SIMILARITY), given)
    np.testing.assert_allclose(found, [expected], 0, 1e-6)


def test_dead_positions() -> None:
    """Two zero vectors are the same; of a zero vector and another nothing is the same."""

    class Part(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lift = nn.Parameter(torch.tensor([0.0, 1.0, 1.0]))

        def forward(self, x: Tensor) -> Tensor:
            return x + x.new_ones(3)[:, None] * self.lift[:, None] * (x.abs().sum() > -1)

    model = nn.Sequential(nn.ReLU(), Part(), nn.Conv1d(3, 2, 1)).eval()
    captured = captured_of(model, (3, 4))
    given = examples((3, 4), 2, 64)
    inputs = torch.full_like(given.inputs[0], -1.0)
    found = scores(captured, mixture(Criterion.SIMILARITY), replace(given, inputs=(inputs,)))
    assert found.tolist() == [1.0]
    zero, one = torch.zeros(2, 3), torch.ones(2, 3)
    assert blocks.cosine(zero, zero, (1,)).tolist() == [1.0, 1.0]
    assert blocks.cosine(zero, one, (1,)).tolist() == [0.0, 0.0]


def test_random_depends_on_the_seed_only() -> None:
    captured = captured_of(nets.resnet(), IMAGE)
    one, again, two = (
        scores(captured, mixture(Criterion.RANDOM), None, seed) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, again)
    np.testing.assert_array_equal(one, np.random.default_rng(1).random(4))
    assert not np.array_equal(one, two)


def test_mixtures_are_normalised_first() -> None:
    captured = captured_of(nets.resnet(), IMAGE)
    given = examples(IMAGE, 5)
    parts = ((Criterion.SIMILARITY, 0.25), (Criterion.LOSS, 0.75))
    alone = [scores(captured, mixture(criterion), given) for criterion, _ in parts]
    expected = sum(
        weight * own / np.abs(own).max() for (_, weight), own in zip(parts, alone, strict=True)
    )
    found = scores(captured, Mixture(parts), given)
    np.testing.assert_allclose(found, expected, 1e-12)


@pytest.mark.parametrize("criterion", [Criterion.SIMILARITY, Criterion.LOSS])
def test_data_is_needed(criterion: Criterion) -> None:
    with pytest.raises(ConfigError, match=f"--criterion {criterion.value}: judges blocks") as no:
        scores(captured_of(nets.resnet(), IMAGE), mixture(criterion), None)
    assert no.value.hint == "give --data, or use --criterion random"


@pytest.mark.parametrize("criterion", [Criterion.SIMILARITY, Criterion.LOSS])
def test_numbers_that_are_none_are_no_scores(criterion: Criterion) -> None:
    captured = captured_of(nets.resnet(), IMAGE)
    given = examples(IMAGE, 5)
    given.inputs[0][3] = float("nan")
    with pytest.raises(TrainingError, match="must compute finite numbers, got nan"):
        scores(captured, mixture(criterion), given)
