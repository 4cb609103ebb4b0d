"""Masks of single weights against PyTorch's own pruning, and against loops."""

import pytest
import torch
from masks_making import maskable, masks_of, plan_of, random_scores
from torch import nn
from torch.nn.utils import prune

from prunecli.choices import Scope
from prunecli.errors import ConfigError, TargetError, TrainingError
from prunecli.graph.reading import Kind
from prunecli.removal import Choosing, LayerRule, Threshold
from prunecli.selection.maskplan import Why

SHAPES = {"a.weight": (8, 5, 3, 3), "b.weight": (7, 9), "c.weight": (4, 7)}


@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.35, 0.5, 0.777, 0.95])
def test_local_masks_are_those_of_l1_unstructured(sparsity: float) -> None:
    scores = random_scores(SHAPES)
    found = masks_of(plan_of(scores, sparsity, choosing=Choosing(scope=Scope.LOCAL)), SHAPES)
    for name, score in scores.items():
        layer = nn.Module()
        layer.weight = nn.Parameter(score.clone())
        prune.l1_unstructured(layer, "weight", amount=sparsity)
        assert torch.equal(found[name], layer.weight_mask.bool())


@pytest.mark.parametrize("sparsity", [0.1, 0.35, 0.5, 0.777, 0.9])
def test_global_masks_are_those_of_global_unstructured(sparsity: float) -> None:
    scores = random_scores(SHAPES)
    layers = []
    for score in scores.values():
        layers.append(nn.Module())
        layers[-1].weight = nn.Parameter(score.clone())
    prune.global_unstructured(
        [(layer, "weight") for layer in layers], prune.L1Unstructured, amount=sparsity
    )
    plan = plan_of(scores, sparsity)
    found = masks_of(plan, SHAPES)
    for name, layer in zip(scores, layers, strict=True):
        assert torch.equal(found[name], layer.weight_mask.bool())
    total = sum(score.numel() for score in scores.values())
    assert round(plan.sparsity * total) == round(sparsity * total)


def test_isomorphic_classes_lose_the_same_share() -> None:
    shapes = {"a.weight": (8, 6, 3, 3), "b.weight": (6, 4, 3, 3), "c.weight": (10, 10)}
    kinds = {"a.weight": Kind.CONVOLUTION, "b.weight": Kind.CONVOLUTION}
    scores = random_scores(shapes)
    scores["c.weight"] += 100.0
    found = masks_of(
        plan_of(scores, 0.5, kinds=kinds, choosing=Choosing(scope=Scope.ISOMORPHIC)), shapes
    )
    assert int(found["c.weight"].sum()) == 50
    both = torch.cat([scores["a.weight"].flatten(), scores["b.weight"].flatten()])
    limit = both.sort().values[both.numel() // 2 - 1]
    for name in kinds:
        assert torch.equal(found[name], scores[name] > limit)


def test_at_or_below_the_threshold_goes() -> None:
    scores = {"a.weight": torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6], [0.7, 0.8, 0.9]])}
    plan = plan_of(scores, None, choosing=Choosing(threshold=Threshold(0.3)))
    stays = [[False] * 3, [True] * 3, [True] * 3]
    assert plan.masks["a.weight"].tolist() == stays
    (row,) = plan.rows
    assert (row.kept, row.total, row.why) == (6, 9, Why.THRESHOLD)
    assert row.lowest_kept == pytest.approx(0.4)
    assert row.highest_removed == row.threshold == pytest.approx(0.3)


def test_dynamic_threshold_counts_standard_deviations() -> None:
    scores = random_scores(SHAPES)
    spread = {"a.weight": 0.3, "b.weight": 0.5, "c.weight": 0.05}
    choosing = Choosing(threshold=Threshold(1.5, dynamic=True))
    found = masks_of(plan_of(scores, None, choosing=choosing, deviations=spread), SHAPES)
    for name, score in scores.items():
        assert torch.equal(found[name], score > 1.5 * spread[name])
        assert not found[name].all()


def test_the_best_weight_of_each_tensor_stays() -> None:
    scores = {"a.weight": torch.full((4, 4), 0.01), "b.weight": torch.rand(10, 10) + 1.0}
    scores["a.weight"][2, 1] = 0.02
    plan = plan_of(scores, 0.5)
    assert plan.masks["a.weight"].nonzero().tolist() == [[2, 1]]
    assert round(plan.sparsity * 116) == 58
    assert [row.why for row in plan.rows] == [Why.FLOOR, Why.RANK]
    plan = plan_of(scores, None, choosing=Choosing(threshold=Threshold(0.5)))
    assert plan.masks["a.weight"].nonzero().tolist() == [[2, 1]]
    assert plan.rows[0].why is Why.FLOOR
    assert "b.weight" not in plan.masks


def test_rules_take_their_share_and_the_rest_makes_up() -> None:
    scores = random_scores(SHAPES)
    choosing = Choosing(rules=(LayerRule("b", 0.25),), keep=("c",))
    plan = plan_of(scores, 0.6, choosing=choosing)
    total = sum(score.numel() for score in scores.values())
    assert round(plan.sparsity * total) == round(0.6 * total)
    rows = {row.name: row for row in plan.rows}
    assert rows["b.weight"].kept == 63 - round(0.25 * 63)
    assert rows["b.weight"].why is Why.OVERRIDE
    assert rows["c.weight"].kept == 28
    assert rows["c.weight"].why is Why.KEPT
    ordered = scores["b.weight"].flatten().sort().values
    assert torch.equal(plan.masks["b.weight"], scores["b.weight"] > ordered[round(0.25 * 63) - 1])


def test_rules_without_a_sparsity_leave_the_rest_alone() -> None:
    plan = plan_of(random_scores(SHAPES), None, choosing=Choosing(rules=(LayerRule("a", 0.5),)))
    assert list(plan.masks) == ["a.weight"]
    assert int(plan.masks["a.weight"].sum()) == 180


@pytest.mark.parametrize(
    ("choosing", "sparsity", "error", "text"),
    [
        (Choosing(rules=(LayerRule("a", 0.9),)), 0.2, ConfigError, "the rules take 71.84%"),
        (Choosing(keep=("a", "b")), 0.5, TargetError, "50% of all weights cannot go, at most 5.9%"),
        (Choosing(keep=("*",)), 0.5, TargetError, "50% of all weights cannot go, at most 0%"),
        (Choosing(keep=("convv",)), 0.5, ConfigError, "--keep: a pattern must match a layer, got"),
        (Choosing(rules=(LayerRule("d.*", 0.5),)), 0.5, ConfigError, "--layer: a pattern must"),
        (Choosing(), None, ConfigError, "it must be said how many weights go"),
    ],
)
def test_what_cannot_be_done_is_refused(choosing, sparsity, error, text) -> None:
    with pytest.raises(error, match=text) as caught:
        plan_of(random_scores(SHAPES), sparsity, choosing=choosing)
    assert "--" in caught.value.hint or "--" in caught.value.message


def test_names_like_the_pattern_are_listed() -> None:
    shapes = {"layer1.conv1.weight": (4, 4), "layer2.conv1.weight": (4, 4), "head.weight": (4, 4)}
    with pytest.raises(ConfigError) as caught:
        plan_of(random_scores(shapes), 0.5, choosing=Choosing(keep=("layer3.*",)))
    assert "layer1" in caught.value.hint
    assert "layer2" in caught.value.hint


def test_patterns_for_other_strategies_are_none_of_its_business() -> None:
    scores = random_scores(SHAPES)
    plan = plan_of(scores, 0.5, choosing=Choosing(keep=("embedding",)), layers=None)
    assert all(torch.equal(plan.masks[k], v) for k, v in plan_of(scores, 0.5).masks.items())


def test_a_score_that_is_no_number_is_refused() -> None:
    scores = random_scores(SHAPES)
    scores["b.weight"][0, 0] = float("nan")
    with pytest.raises(TrainingError, match=r"got some of b.weight"):
        plan_of(scores, 0.5)


@pytest.mark.parametrize("scope", list(Scope))
def test_what_is_masked_stays_masked(scope: Scope) -> None:
    scores = random_scores(SHAPES)
    current = plan_of(scores, 0.4, choosing=Choosing(scope=scope)).masks
    others = {name: torch.rand(score.shape) for name, score in scores.items()}
    plan = plan_of(others, 0.6, choosing=Choosing(scope=scope), current=current)
    total = sum(score.numel() for score in scores.values())
    assert abs(plan.sparsity * total - 0.6 * total) <= (0.5 if scope is Scope.GLOBAL else 1.5)
    for name, mask in current.items():
        assert not (plan.masks[name] & ~mask).any()
    again = plan_of(others, 0.3, choosing=Choosing(scope=scope), current=current)
    for name, mask in current.items():
        assert torch.equal(again.masks[name], mask)


def test_progress_is_the_share_of_all_that_goes() -> None:
    scores = random_scores(SHAPES)
    half = plan_of(scores, 0.8, progress=0.5)
    assert all(torch.equal(half.masks[k], v) for k, v in plan_of(scores, 0.4).masks.items())
    limit = Choosing(threshold=Threshold(0.5))
    whole, part = (plan_of(scores, None, choosing=limit, progress=p) for p in (1.0, 0.25))
    for name, score in scores.items():
        gone = ~whole.masks[name]
        assert int((~part.masks[name]).sum()) == round(0.25 * int(gone.sum()))
        assert not (~part.masks[name] & ~gone).any()
        assert score[~part.masks[name]].max() < score[gone & part.masks[name]].min()


def test_ties_go_by_place_and_exactly_as_many_as_asked() -> None:
    scores = {"a.weight": torch.ones(4, 4), "b.weight": torch.ones(2, 2)}
    plan = plan_of(scores, 0.5)
    assert round(plan.sparsity * 20) == 10
    assert plan.masks["a.weight"].flatten().tolist() == [False] * 10 + [True] * 6
    assert maskable("x.weight", (2, 3)).size == 6
