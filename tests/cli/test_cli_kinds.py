"""Networks of every kind lose half of their computation, are trained on, and know what they knew.

The margins are those of tiny networks that are full of what they have learnt.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_making import run
from kinds_making import Kind, classifier, heads, recurrent, regression, segmentation, sounds

SPEED = ("--latency-seconds", "0.02", "-q", "--json")


@pytest.mark.parametrize(
    ("make", "metric", "epochs", "margin"),
    [
        pytest.param(classifier, "accuracy", 2, 0.03, id="text", marks=pytest.mark.slow),
        pytest.param(regression, "mse", 4, 0.005, id="numbers"),
        pytest.param(segmentation, "miou", 3, 0.05, id="segmentation"),
        pytest.param(heads, "shape.accuracy", 2, 0.04, id="heads"),
        pytest.param(recurrent, "accuracy", 3, 0.03, id="lstm"),
        pytest.param(sounds, "accuracy", 2, 0.04, id="sounds"),
    ],
)
def test_kinds_recover(
    make: Callable[[Path], Kind],
    metric: str,
    epochs: int,
    margin: float,
    tmp_path: Path,
    here: Path,
) -> None:
    kind = make(tmp_path)
    wish = ("--target-macs", "50%", "--epochs", str(epochs), "-o", "a.onnx")
    ended = run("prune", *kind.call, *SPEED, *wish)
    assert ended.code == 0, ended.err
    report = json.loads(ended.out)
    original, *_, final = report["rows"]
    assert report["scoring"]["metric"] == metric
    assert final["macs"] <= 0.5 * original["macs"]
    # The original knows much more than nothing, and the pruned one nearly as much.
    better = 1 if report["scoring"]["higher_is_better"] else -1
    assert better * (original["score"] - kind.chance) > 5 * margin
    assert better * (original["score"] - final["score"]) < margin
    # The JSON says what anybody can compute from the file.
    assert kind.score(here / "a.onnx") == pytest.approx(final["score"], rel=1e-5)
