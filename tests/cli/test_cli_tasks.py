"""Networks with several inputs and outputs, and tasks of all kinds, through the command line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from cli_making import Ended, run
from safetensors.torch import save_file
from torch import nn

from prunecli.loading.factory import build_module
from prunecli.pipeline import answering

NETS = """
from torch import Tensor, nn


class Two(nn.Module):
    '''Words and numbers in, a class and a number out.'''

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(12, 8)
        self.mix = nn.Linear(8, 24)
        self.table = nn.Linear(3, 24)
        self.deep = nn.Linear(24, 32)
        self.digit = nn.Linear(32, 4)
        self.angle = nn.Linear(32, 1)

    def forward(self, ids, numbers):
        x = self.mix(self.words(ids).mean(1)).relu() + self.table(numbers).relu()
        x = self.deep(x).relu()
        return {"digit": self.digit(x), "angle": self.angle(x)}


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(12, 16)
        self.one = nn.Linear(16, 64)
        self.two = nn.Linear(64, 4)

    def forward(self, ids):
        return self.two(self.one(self.words(ids)).relu())


class Painter(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 3, 1),
        )

    def forward(self, x):
        return self.body(x)


class Signals(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 48), nn.ReLU(), nn.Linear(48, 4))

    def forward(self, x):
        return self.body(x)
"""

SPEED = ("--latency-seconds", "0.02", "-q", "--json", "--batch-size", "16")


def words_and_numbers(count: int, seed: int) -> dict[str, np.ndarray]:
    """The class is in the words, the angle in the numbers."""
    rng = np.random.default_rng(seed)
    digit = rng.integers(0, 4, count)
    ids = digit[:, None] * 3 + rng.integers(0, 3, (count, 7))
    numbers = rng.normal(size=(count, 3)).astype(np.float32)
    return {
        "ids": ids.astype(np.int32),
        "numbers": numbers,
        "digit": digit,
        "angle": (numbers[:, 0] - 2 * numbers[:, 1]).astype(np.float32),
    }


def tokens(count: int, seed: int) -> dict[str, np.ndarray]:
    """A token's label is a third of its number; the last ones are padding."""
    ids = np.random.default_rng(seed).integers(0, 12, (count, 9))
    labels = ids // 3
    labels[:, 6:] = -100
    return {"ids": ids, "y": labels}


def pictures(count: int, seed: int) -> dict[str, np.ndarray]:
    """A pixel's class is its brightest colour; a corner is not marked."""
    images = np.random.default_rng(seed).integers(0, 256, (count, 3, 8, 8), dtype=np.uint8)
    masks = images.argmax(1)
    masks[:, :2, :2] = 255
    return {"x": images, "y": masks}


def signals(count: int, seed: int) -> dict[str, np.ndarray]:
    x = np.random.default_rng(seed).normal(size=(count, 6)).astype(np.float32)
    return {"x": x, "y": (x[:, :4] > 0).astype(np.int64)}


KINDS = {
    "Two": words_and_numbers,
    "Tagger": tokens,
    "Painter": pictures,
    "Signals": signals,
}


def trained(folder: Path, name: str) -> None:
    """A network that has learnt its data, and the data beside it."""
    (folder / "nets.py").write_text(NETS)
    make = KINDS[name]
    np.savez(
        folder / "data.npz",
        **{f"{key}_train": value for key, value in make(400, 0).items()},
        **{f"{key}_val": value for key, value in make(120, 1).items()},
    )
    torch.manual_seed(0)
    net, _ = build_module(f"{folder / 'nets.py'}:{name}", {}, ())
    given = {key: torch.from_numpy(value) for key, value in make(400, 0).items()}
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(120):
        optimizer.zero_grad()
        loss_of(name, net, given).backward()
        optimizer.step()
    save_file(net.state_dict(), folder / "net.safetensors")


def loss_of(name: str, net: nn.Module, given: dict[str, torch.Tensor]) -> Any:
    if name == "Two":
        said = net(given["ids"].long(), given["numbers"])
        return nn.functional.cross_entropy(said["digit"], given["digit"]) + (
            nn.functional.mse_loss(said["angle"][:, 0], given["angle"])
        )
    if name == "Tagger":
        return nn.functional.cross_entropy(net(given["ids"]).flatten(0, 1), given["y"].flatten())
    if name == "Painter":
        said = net(given["x"].float() / 255)
        return nn.functional.cross_entropy(said, given["y"], ignore_index=255)
    return nn.functional.binary_cross_entropy_with_logits(net(given["x"]), given["y"].float())


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    found = {}
    for name in KINDS:
        found[name] = tmp_path_factory.mktemp(name)
        trained(found[name], name)
    return found


def pruned(folder: Path, name: str, out: Path, *flags: str) -> dict[str, Any]:
    ended = run(
        "prune",
        *(str(folder / "net.safetensors"), "--model", f"{folder / 'nets.py'}:{name}"),
        *("--data", str(folder / "data.npz"), "-o", str(out), *SPEED, *flags),
    )
    assert ended.code == 0, ended.err
    report: dict[str, Any] = json.loads(ended.out)
    return report


HEADS = "digit=classification:1.0,angle=regression:0.5"


def test_two_inputs_and_two_outputs(folders: dict[str, Path], here: Path) -> None:
    report = pruned(folders["Two"], "Two", here / "a.onnx", "--task", HEADS, "--epochs", "3")
    before, _, after = report["rows"]
    assert report["scoring"]["metric"] == "digit.accuracy"
    assert before["score"] == 1.0
    assert after["score"] > 0.95
    assert before["others"]["angle.r2"] > 0.9
    assert after["others"]["angle.r2"] > 0.8
    assert after["params"] < before["params"]
    assert any("reconstructed" in note for note in report["notes"])
    # The JSON says what anybody can compute from the file.
    data = np.load(folders["Two"] / "data.npz")
    session = onnxruntime.InferenceSession(here / "a.onnx")
    names = [item.name for item in session.get_inputs()]
    assert names == ["ids", "numbers"]
    feed = {"ids": data["ids_val"].astype(np.int64), "numbers": data["numbers_val"]}
    digit, angle = session.run(["digit", "angle"], feed)
    assert after["score"] == (digit.argmax(1) == data["digit_val"]).mean()
    error = ((angle[:, 0] - data["angle_val"].astype(np.float64)) ** 2).mean()
    assert after["others"]["angle.mse"] == pytest.approx(error, rel=1e-5)


@pytest.mark.parametrize(
    ("strategy", "criterion"),
    [
        ("structured", "taylor"),
        ("structured", "fisher"),
        ("neuron", "taylor"),
        ("neuron", "activation"),
        ("weight", "wanda"),
        ("weight", "movement"),
    ],
)
def test_criteria_see_all_inputs_and_outputs(
    strategy: str, criterion: str, folders: dict[str, Path], here: Path
) -> None:
    if (strategy, criterion) in (
        ("structured", "wanda"),
        ("neuron", "wanda"),
        ("neuron", "fisher"),
    ):
        pytest.skip("not a criterion of this strategy")
    flags = ("--task", HEADS, "--strategy", strategy, "--criterion", criterion, "--epochs", "0")
    report = pruned(folders["Two"], "Two", here / "a.onnx", *flags)
    assert report["status"] == "ok"


@pytest.mark.parametrize(
    ("name", "task", "metric", "least"),
    [
        ("Tagger", "token-classification", "accuracy", 0.95),
        ("Painter", "segmentation", "miou", 0.6),
        ("Signals", "multilabel", "f1", 0.85),
    ],
)
def test_tasks_recover(
    name: str, task: str, metric: str, least: float, folders: dict[str, Path], here: Path
) -> None:
    flags = ("--task", task, "--epochs", "4", "--target-params", "60%")
    report = pruned(folders[name], name, here / "a.onnx", *flags)
    assert report["data"]["task"] == task
    assert report["scoring"]["metric"] == metric
    assert report["rows"][0]["score"] > least
    assert report["rows"][-1]["score"] > least


def test_several_labels_are_mixed_averaged_and_trained_until_they_are_back(
    folders: dict[str, Path], here: Path
) -> None:
    flags = ("--task", "multilabel", "--mixup", "0.4", "--ema", "0.9", "--epochs", "2")
    until = ("--until-recovered", "50%", "--max-epochs", "6", "--target-params", "60%")
    report = pruned(folders["Signals"], "Signals", here / "a.onnx", *flags, *until)
    assert report["status"] == "ok"
    assert "training examples are mixed in pairs: mixup" in report["notes"]
    assert any(note.startswith("recovered: validation F1 ") for note in report["notes"])
    first, *_, last = (row["score"] for row in report["rows"])
    assert last >= first / 2


@pytest.mark.parametrize("criterion", ["l2", "reconstruction"])
def test_match_needs_no_labels(criterion: str, folders: dict[str, Path], here: Path) -> None:
    data = np.load(folders["Signals"] / "data.npz")
    np.savez(here / "bare.npz", x=data["x_train"])
    flags = ("--task", "match", "--epochs", "3", "--data", str(here / "bare.npz"))
    flags = (*flags, "--criterion", criterion)
    report = pruned(folders["Signals"], "Signals", here / "a.onnx", *flags)
    original, start, end = (row["score"] for row in report["rows"])
    assert original < 1e-5
    assert end < start < 1.0
    assert (
        "the loss is the distance to the original's outputs; no labels were used"
        in (report["notes"])
    )


BARE = """
import torch
from torch import nn


class Decided(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 4))

    def forward(self, x):
        return self.body(x).argmax(1)


class WithLoss(Decided):
    def forward(self, x):
        y = self.body(x)
        return y, y.square().mean()


class Fixed(WithLoss):
    def forward(self, x):
        y = self.body(x).reshape(16, 4)
        return y, y.square().mean()


class Merged(Decided):
    def forward(self, x):
        return self.body(x).reshape(-1, 2)
"""


def matched(here: Path, name: str, *flags: str) -> Ended:
    (here / "bare.py").write_text(BARE)
    torch.manual_seed(0)
    net, _ = build_module(f"{here / 'bare.py'}:{name}", {}, ())
    save_file(net.state_dict(), here / "bare.safetensors")
    np.savez(here / "bare.npz", x=signals(90, 0)["x"])
    words = ("bare.safetensors", "--model", f"bare.py:{name}", "--data", "bare.npz", *SPEED)
    return run("prune", *words, "--task", "match", "-o", "a.onnx", *flags)


@pytest.mark.parametrize("name", ["WithLoss", "Fixed"])
def test_match_goes_by_outputs_for_each_example(name: str, here: Path) -> None:
    shape = ("--input-shape", "16,6") if name == "Fixed" else ()
    ended = matched(here, name, "--target-params", "70%", *shape)
    assert ended.code == 0, ended.err
    original, *_, last = (row["score"] for row in json.loads(ended.out)["rows"])
    assert original < 1e-5 < last < 1


@pytest.mark.parametrize(
    ("name", "flags", "error", "tip"),
    [
        ("Decided", (), "with a decimal point for each example, got int64", "return scores"),
        (
            "Merged",
            (),
            "count examples on their first axis, got float32 (30, 2) for 15 examples",
            "first",
        ),
        ("WithLoss", ("--max-drop", "5%"), "--max-drop: goes by the original's score", "leave it"),
    ],
)
def test_what_cannot_be_matched_is_refused_before_any_work(
    name: str, flags: tuple[str, ...], error: str, tip: str, here: Path
) -> None:
    ended = matched(here, name, *flags)
    assert ended.code == 2
    first, second = ended.err.splitlines()
    assert error in first
    assert tip in second


def test_answers_that_would_take_too_much_are_refused(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "MOST_BYTES", 100)
    ended = matched(here, "WithLoss")
    assert ended.code == 2
    assert "--task match keeps what the original says" in ended.err
    assert ended.err.splitlines()[1] == "TIP read fewer: --max-samples 6"


def test_max_drop_as_a_share_of_a_number(folders: dict[str, Path], here: Path) -> None:
    folder = folders["Two"]
    words = (
        *(str(folder / "net.safetensors"), "--model", f"{folder / 'nets.py'}:Two", *SPEED),
        *("--data", str(folder / "data.npz"), "-o", "a.onnx", "--task", "angle=regression"),
    )
    # The error may double, no more; where that is reached, less is removed.
    ended = run("prune", *words, "--max-drop", "100%")
    report = json.loads(ended.out)
    assert ended.code == (1 if report["missed"] else 0)
    assert report["scoring"]["metric"] == "angle.mse"
    assert report["rows"][-1]["score"] <= 2 * report["rows"][0]["score"] * (1 + 1e-4)
    ended = run("prune", *words, "--max-drop", "1pp")
    assert ended.code == 2
    assert ended.err.splitlines() == [
        "ERROR --max-drop: counts points of a percentage, got angle MSE, a number",
        "TIP give it as a share of what the original scores: --max-drop 5%",
    ]


@pytest.mark.parametrize(
    ("name", "flags", "error"),
    [
        ("Two", (), "an array of targets is needed beside 'ids_train', got none"),
        ("Two", ("--task", "depth=regression"), "an array of targets 'depth' is needed"),
        ("Tagger", ("--task", "segmentation"), "--task segmentation needs integers with 2 axes"),
        ("Tagger", (), "targets must be one class, or some floats, for each example"),
        ("Painter", ("--task", "token-classification"), "integers with 1 axes"),
        ("Painter", ("--task", "segmentation", "--augment", "light"), "--augment light: moves"),
        ("Painter", ("--task", "segmentation", "--cutmix", "1"), "--cutmix: mixes classes of"),
        ("Tagger", ("--task", "token-classification", "--mixup", "1"), "--mixup: mixes classes of"),
        ("Signals", ("--task", "match", "--distill", "0.5"), "--distill: has no effect"),
        ("Signals", ("--task", "multilabel", "--label-smoothing", "0.1"), "--label-smoothing"),
        ("Signals", ("--task", "nothing"), "--task: one of classification, multilabel"),
        ("Signals", ("--task", "x=nothing"), "--task: OUTPUT=TASK:WEIGHT is needed"),
        (
            "Signals",
            ("--task", "match", "--strategy", "weight", "--criterion", "snip"),
            "no labels",
        ),
        ("Signals", ("--task", "match", "--criterion", "l2:1,taylor:1"), "taylor:1: looks at a"),
        ("Signals", ("--task", "match", "--strategy", "layer", "--criterion", "loss"), "no labels"),
    ],
)
def test_what_does_not_fit_is_refused(
    name: str, flags: tuple[str, ...], error: str, folders: dict[str, Path], here: Path
) -> None:
    folder = folders[name]
    ended = run(
        "prune",
        *(str(folder / "net.safetensors"), "--model", f"{folder / 'nets.py'}:{name}"),
        *("--data", str(folder / "data.npz"), "-o", "a.onnx", "-q", *flags),
    )
    assert ended.code == 2
    first, second = ended.err.splitlines()
    assert error in first
    assert first.startswith("ERROR ")
    assert second.startswith("TIP ")
    assert not Path("a.onnx").exists()


def test_indices_beyond_the_table_are_refused(folders: dict[str, Path], here: Path) -> None:
    data = dict(np.load(folders["Tagger"] / "data.npz"))
    data["ids_train"][3, 2] = 12
    np.savez(here / "data.npz", **data)
    ended = run(
        "prune",
        *(str(folders["Tagger"] / "net.safetensors"), "-o", "a.onnx", "-q"),
        *("--model", f"{folders['Tagger'] / 'nets.py'}:Tagger"),
        *("--data", "data.npz", "--task", "token-classification"),
    )
    assert ended.code == 2
    assert "indices must lie in 0 to 11, got 12" in ended.err
