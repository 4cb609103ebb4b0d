"""Random masks on every operator and situation of the engine's tables: what they empty goes,
and the rest computes what it did."""

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
from engine_harness import analyse, assert_same, inputs_of, shaken
from test_operators import ROWS

from prunecli.graph.maskable import Maskable, maskables
from prunecli.surgery.masks import compact_masked, masked_copy


def random_mask(of: Maskable, generator: torch.Generator) -> Tensor:
    """Most single weights go, and some whole inputs and outputs."""
    share = (0.5, 0.9, 0.97)[int(torch.randint(3, (1,), generator=generator))]
    mask = torch.rand(of.shape, generator=generator) > share
    for axis in (of.input_axis, of.output_axis):
        if axis is not None:
            gone = torch.rand(of.shape[axis], generator=generator) < 0.4
            mask.index_fill_(axis, gone.nonzero().reshape(-1), False)
    return mask


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_what_random_masks_empty_goes_exactly(row) -> None:
    found = analyse(shaken(row.make()), row.shapes)
    for seed, biases in ((0, False), (1, True)):
        generator = torch.Generator().manual_seed(seed)
        masks = {
            item.name: random_mask(item, generator)
            for item in maskables(found.captured, found.flow, biases=biases)
        }
        result = compact_masked(found.captured, found.flow, found.coupling, masks)
        reference = masked_copy(found.captured, found.flow, found.coupling, masks).network
        inputs = inputs_of(row.shapes, 2, seed=9)
        with torch.no_grad():
            expected = reference(*(item.clone() for item in inputs))
            if all(torch.isfinite(x).all() for x in torch.utils._pytree.tree_leaves(expected)):
                assert_same(expected, result.network(*(item.clone() for item in inputs)))
