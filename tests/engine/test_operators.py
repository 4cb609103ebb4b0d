"""Every operator and situation of conv nets and MLPs: pruned at random, compared exactly.

The rows stand in `rows_*.py`; to add an operator, add a row there (see docs/operators.md).
"""

import re
from pathlib import Path

import pytest
import rows_attention
import rows_computed
import rows_layers
import rows_movement
import rows_patterns
import rows_pointwise
import rows_vanishing
import torch
from engine_harness import (
    Analysis,
    analyse,
    assert_exact,
    channels,
    kept_of,
    macs,
    prune,
    reasons,
    shaken,
)
from engine_rows import Row
from torch import nn

from prunecli.choices import Criterion
from prunecli.errors import NothingToPruneError
from prunecli.graph.rules.table import _BY_RULE, RULES
from prunecli.surgery.constants import REWRITERS

ROWS = (
    *rows_pointwise.ROWS,
    *rows_layers.ROWS,
    *rows_movement.ROWS,
    *rows_patterns.ROWS,
    *rows_attention.ROWS,
    *rows_computed.ROWS,
    *rows_vanishing.ROWS,
)

TRIALS = (
    (channels(0.5), Criterion.RANDOM, 0),
    (channels(0.7), Criterion.RANDOM, 1),
    (channels(0.3), Criterion.RANDOM, 2),
)


def test_every_name_in_the_tables_is_an_operator() -> None:
    for name in (*RULES, *REWRITERS):
        packet = name.removeprefix("aten.")
        assert hasattr(torch.ops.aten, packet) or hasattr(torch.ops.aten, f"{packet}_"), name
    assert set(REWRITERS) <= set(RULES)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_operator(row: Row) -> None:
    module = shaken(row.make())
    found = analyse(module, row.shapes)
    assert tuple(found.flow.notes.unknown) == row.unknown
    said = reasons(found.coupling)
    for layer, words in row.stays.items():
        assert words in said.get(layer, "nothing"), said
    if found.coupling.count == 0:
        assert not row.goes
        with pytest.raises(NothingToPruneError, match="nothing can be pruned"):
            prune(found, macs(0.5))
        return
    went = _went(row, module, found)
    assert not [layer for layer in row.stays if layer in went or f"{layer}.weight" in went]
    assert set(row.goes) <= went


def _went(row: Row, module: nn.Module, found: Analysis) -> set[str]:
    """Tensors that lost something of axis 0 in any trial, all of which are exact."""
    went: set[str] = set()
    for target, criterion, seed in (*TRIALS, (macs(row.macs), Criterion.L2, 0)):
        pruned = prune(found, target, criterion, seed)
        assert_exact(module, row.shapes, found, pruned, by_zeroing=row.exact)
        went |= {name for name in pruned.plan.tensors if kept_of(pruned.plan, name) is not None}
    return went


def test_the_examples_in_the_documentation_are_the_code() -> None:
    root = Path(__file__).parents[2]
    text = (root / "docs/operators.md").read_text()
    blocks = re.findall(r"```python\n# (\S+)\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 4
    for path, code in blocks:
        assert code in (root / path).read_text(), path


def test_no_operator_has_two_rules() -> None:
    named = [name for _, names in _BY_RULE for name in names.split()]
    assert len(named) == len(set(named))
