"""n:m and block masks against loops, PyTorch's structured pruning, and its own 2:4 conversion."""

import math

import pytest
import torch
from masks_making import maskable, masks_of, plan_of, random_scores
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.sparse import _semi_structured_conversions as conversions

from prunecli.choices import Scope
from prunecli.errors import ConfigError
from prunecli.graph.reading import Kind
from prunecli.removal import Choosing, LayerRule, Pattern, PatternKind, Threshold, WeightsWanted
from prunecli.selection.maskplan import Why
from prunecli.selection.masks import choose_masks


def n_of_m(n: int, m: int) -> Pattern:
    return Pattern(PatternKind.N_OF_M, n, m)


def block(rows: int, columns: int) -> Pattern:
    return Pattern(PatternKind.BLOCK, rows, columns)


def runs_of(extent: int, m: int) -> list[range]:
    return [range(start, min(start + m, extent)) for start in range(0, extent, m)]


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (4, 8), (1, 2), (3, 5)])
@pytest.mark.parametrize("shape", [(8, 16), (5, 11), (4, 9, 3, 3), (6, 10, 2)])
def test_every_run_of_inputs_keeps_its_best(n: int, m: int, shape: tuple[int, ...]) -> None:
    scores = random_scores({"a.weight": shape})
    plan = plan_of(scores, None, pattern=n_of_m(n, m))
    mask, score = plan.masks["a.weight"], scores["a.weight"]
    for output in range(shape[0]):
        for place in range(math.prod(shape[2:])):
            row, kept = (x[output].reshape(shape[1], -1)[:, place].tolist() for x in (score, mask))
            for run in runs_of(shape[1], m):
                best = sorted(run, key=lambda index: -row[index])[: min(n, len(run))]
                assert [index for index in run if kept[index]] == sorted(best)
    assert plan.rows[0].why is Why.PATTERN


def test_inputs_of_a_grouped_transposed_convolution_restart_per_group() -> None:
    """Its weight is (I, O/g, ...): with 6 inputs in each of 2 groups, runs of 4 end at 6."""
    scores = random_scores({"a.weight": (12, 3, 2)})
    of = maskable("a.weight", (12, 3, 2), Kind.TRANSPOSED, input_axis=0, output_axis=1, groups=2)
    wanted = WeightsWanted(None, n_of_m(2, 4))
    mask = choose_masks(scores, [of], wanted, Choosing()).masks["a.weight"]
    for start, stop in ((0, 4), (4, 6), (6, 10), (10, 12)):
        assert (mask[start:stop].sum(0) == 2).all()


def test_axes_too_short_stay_dense_and_that_is_said() -> None:
    plan = plan_of(random_scores({"a.weight": (8, 3, 3, 3)}), None, pattern=n_of_m(2, 4))
    assert not plan.masks
    assert (plan.rows[0].why, plan.rows[0].kept) == (Why.TOO_SHORT, 216)


def test_n_of_m_leaves_no_other_choice() -> None:
    scores = random_scores({"a.weight": (8, 8)})
    with pytest.raises(ConfigError, match="--weight-sparsity: the pattern 2:4 decides"):
        plan_of(scores, 0.5, pattern=n_of_m(2, 4))
    rules = Choosing(rules=(LayerRule("a", 0.5),))
    with pytest.raises(ConfigError, match="--layer: the pattern 2:4 decides"):
        plan_of(scores, None, pattern=n_of_m(2, 4), choosing=rules)
    kept = plan_of(scores, None, pattern=n_of_m(2, 4), choosing=Choosing(keep=("a",)))
    assert not kept.masks
    assert kept.rows[0].why is Why.KEPT


def test_what_is_masked_stays_so_in_a_pattern() -> None:
    scores = random_scores({"a.weight": (4, 16)})
    current = {"a.weight": torch.rand((4, 16), generator=torch.Generator().manual_seed(3)) > 0.3}
    mask = plan_of(scores, None, pattern=n_of_m(2, 4), current=current).masks["a.weight"]
    assert not (mask & ~current["a.weight"]).any()
    left = current["a.weight"].reshape(-1, 4).sum(1).clamp(max=2)
    assert torch.equal(mask.reshape(-1, 4).sum(1), left)


def round_trip(weight: Tensor) -> Tensor:
    values, places = conversions.sparse_semi_structured_from_dense_cutlass(weight)
    return conversions.sparse_semi_structured_to_dense_cutlass(values, places)


def test_two_of_four_is_what_pytorch_converts() -> None:
    scores = random_scores({"a.weight": (64, 64)})
    mask = plan_of(scores, None, pattern=n_of_m(2, 4)).masks["a.weight"]
    weight = (torch.randn((64, 64), generator=torch.Generator().manual_seed(1)) + 3.0).half()
    assert torch.equal(round_trip(weight * mask), weight * mask)
    broken = mask.clone()
    broken[5, :4] = True
    assert not torch.equal(round_trip(weight * broken), weight * broken)


def blocks_of(matrix: Tensor, rows: int, columns: int) -> list[tuple[slice, slice]]:
    return [
        (slice(i, i + rows), slice(j, j + columns))
        for i in range(0, matrix.shape[0], rows)
        for j in range(0, matrix.shape[1], columns)
    ]


@pytest.mark.parametrize("size", [(4, 1), (1, 4), (2, 3), (16, 16)])
@pytest.mark.parametrize("shape", [(8, 12), (7, 10), (6, 5, 3, 3)])
def test_whole_blocks_go_lowest_means_first(size: tuple[int, int], shape) -> None:
    scores = random_scores({"a.weight": shape})
    plan = plan_of(scores, 0.5, pattern=block(*size))
    matrix = scores["a.weight"].reshape(shape[0], -1)
    mask = masks_of(plan, {"a.weight": shape})["a.weight"].reshape(shape[0], -1)
    places = blocks_of(matrix, *size)
    ordered = sorted(places, key=lambda place: float(matrix[place].double().mean()))
    gone = [place for place in places if not mask[place].any()]
    assert all(mask[place].all() for place in places if place not in gone)
    assert gone == [place for place in places if place in ordered[: len(gone)]]
    # No other number of blocks comes closer to the half.
    sizes = [matrix[place].numel() for place in ordered]
    reached = [abs(sum(sizes[:n]) - matrix.numel() / 2) for n in range(len(sizes))]
    assert reached[len(gone)] == min(reached)


@pytest.mark.parametrize("amount", [0.1, 0.3, 0.55, 0.7])
def test_rows_as_blocks_are_those_of_ln_structured(amount: float) -> None:
    scores = random_scores({"a.weight": (20, 6, 3, 3)})
    choosing = Choosing(scope=Scope.LOCAL)
    found = plan_of(scores, amount, pattern=block(1, 54), choosing=choosing).masks["a.weight"]
    layer = nn.Module()
    layer.weight = nn.Parameter(scores["a.weight"].clone())
    prune.ln_structured(layer, "weight", amount=amount, n=1, dim=0)
    assert torch.equal(found, layer.weight_mask.bool())


def test_blocks_of_a_transposed_convolution_follow_its_outputs() -> None:
    scores = random_scores({"a.weight": (6, 4, 3)})
    of = maskable("a.weight", (6, 4, 3), Kind.TRANSPOSED, input_axis=0, output_axis=1)
    wanted = WeightsWanted(0.5, block(2, 18))
    mask = choose_masks(scores, [of], wanted, Choosing()).masks["a.weight"]
    means = [float(scores["a.weight"][:, rows].mean()) for rows in (slice(0, 2), slice(2, 4))]
    gone = int(means[1] < means[0])
    assert not mask[:, 2 * gone : 2 * gone + 2].any()
    assert mask[:, 2 - 2 * gone : 4 - 2 * gone].all()


def test_a_threshold_is_compared_with_the_mean_of_a_block() -> None:
    scores = {"a.weight": torch.tensor([[0.1, 0.5, 0.2, 0.2], [0.9, 0.0, 0.1, 0.2]])}
    limit = Choosing(threshold=Threshold(0.3))
    mask = plan_of(scores, None, pattern=block(1, 2), choosing=limit).masks["a.weight"]
    assert mask.tolist() == [[False] * 4, [True, True, False, False]]


def test_blocks_that_are_gone_rank_first() -> None:
    scores = random_scores({"a.weight": (8, 8)})
    first = plan_of(scores, 0.25, pattern=block(2, 2)).masks
    other = random_scores({"a.weight": (8, 8)}, 5)
    second = plan_of(other, 0.5, pattern=block(2, 2), current=first).masks["a.weight"]
    assert int(second.sum()) == 32
    assert not (second & ~first["a.weight"]).any()
