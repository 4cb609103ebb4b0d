"""Real architectures, pruned to half of their MACs and checked in every way the zoo knows.

A few small ones at low resolution in every run; `pytest -m slow tests/zoo` runs the whole core
set at full resolution (about ten minutes on one core).
"""

from importlib.util import find_spec

import pytest

import zoo_segmentation
import zoo_torchvision
from zoo_entry import Entry
from zoo_row import Row
from zoo_run import BATCHES, run

NORMS_ARE_CUT = {"convnext_tiny"}
"""Layer norms take their statistics over what is left, so zeroed parameters are no oracle."""

needs_torchvision = pytest.mark.skipif(
    find_spec("torchvision") is None, reason="torchvision is not installed"
)


def check(family: str, entry: Entry) -> None:
    """All that issue and design ask of one architecture.

    What the row says is compared with numbers here, not with the zoo's own verdict alone.
    """
    row = run(family, entry)
    assert (row.stage, row.why) == ("done", "")
    assert row.macs_share is not None
    assert 0.48 <= row.macs_share <= 0.50
    assert row.flops_share == pytest.approx(row.macs_share, abs=0.002), "PyTorch counts otherwise"
    assert not row.unknown
    assert_below(row, 1e-4)
    assert row.same_shape
    assert row.batches == BATCHES
    assert row.status == "ok"


def assert_below(row: Row, tolerance: float) -> None:
    """Every comparison was made and found rounding only."""
    names = ["oracle", "oracle_inside", "onnx"]
    if row.name not in NORMS_ARE_CUT:
        names.append("eager")
    found = {name: getattr(row, name) for name in names}
    assert all(value is not None and value < tolerance for value in found.values()), found


@needs_torchvision
@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", "shufflenet_v2_x1_0"])
def test_small_network_at_half_of_its_macs(name: str) -> None:
    check("torchvision", zoo_torchvision.entry(name, pixels=64))


def test_small_unet_at_half_of_its_macs() -> None:
    check("segmentation", zoo_segmentation.unet(32))


@needs_torchvision
@pytest.mark.slow
@pytest.mark.parametrize("name", zoo_torchvision.CORE.split())
def test_network_at_half_of_its_macs(name: str) -> None:
    check("torchvision", zoo_torchvision.entry(name))


@pytest.mark.slow
def test_unet_at_half_of_its_macs() -> None:
    check("segmentation", zoo_segmentation.unet(128))
