"""The zoo itself: it must notice what is wrong, and survive what crashes."""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import fx, nn

import zoo
import zoo_run
import zoo_table
from prunecli.surgery.oracle import OracleResult
from zoo_check import apart, zero
from zoo_entry import Entry, images
from zoo_registry import FAMILIES
from zoo_row import Row, faults, read, write
from zoo_unet import UNet
from zoo_weights import liven

GOOD = Row(
    "family",
    "net",
    stage="done",
    captured=True,
    dynamic_batch=True,
    prunable=0.9,
    macs=2e9,
    params=3e6,
    target=0.5,
    macs_share=0.495,
    params_share=0.4,
    flops_share=0.4951,
    oracle=1e-6,
    oracle_inside=2e-6,
    eager=1e-6,
    onnx=3e-6,
    batches=(1, 3),
    same_shape=True,
    seconds={"capture": 1.0, "analysis": 0.25, "plan": 0.5, "export": 4.0},
    model_bytes=1 << 20,
    peak_bytes={"build": 9 << 20, "capture": 2 << 20, "export": 4 << 20},
)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"macs_share": 0.501, "flops_share": 0.501}, "50.10% of MACs left, 50.00% asked for"),
        ({"macs_share": 0.479, "flops_share": 0.479}, "47.90% of MACs left, 50.00% asked for"),
        ({"flops_share": 0.52}, "PyTorch counts 52.00% of the work left"),
        ({"oracle": 2e-4}, "oracle differs by 0.0002"),
        ({"oracle": float("nan")}, "oracle differs by nan"),
        ({"oracle_inside": None}, "inside differs by None"),
        ({"onnx": 1.0}, "onnx differs by 1.0"),
        ({"eager": 0.5}, "the model with zeroed parameters differs by 5.0e-01"),
        ({"same_shape": False}, "the output's shape has changed"),
    ],
)
def test_every_fault_is_named_and_fails_the_row(change: dict[str, float], fault: str) -> None:
    row = replace(GOOD, **change)
    assert faults(row) == [fault]
    assert row.status == "FAIL"


def test_status() -> None:
    assert GOOD.status == "ok"
    assert replace(GOOD, target=0.8, macs_share=0.79, flops_share=0.79).status == "part"
    assert replace(GOOD, stage="onnx").status == "FAIL"


def test_row_survives_its_file(tmp_path: Path) -> None:
    write(GOOD, tmp_path / "row.json")
    assert read(tmp_path / "row.json") == GOOD


def test_line_stands_below_its_heading() -> None:
    head, line = zoo_table.heading(6), zoo_table.line(GOOD, 6)
    for title, text in [
        ("MACs", "2G"),
        ("prunable", "90.00%"),
        ("achieved", "49.50%"),
        ("onnx", "3e-06"),
        ("plan", "0.50"),
        ("MiB", "4"),
        ("engine", "2.0"),
    ]:
        end = head.index(title) + len(title)
        assert line[:end].endswith(text), title
    assert len(line) <= len(head)


def test_totals_sum() -> None:
    lost = Row("family", "lost", why="capture: killed")
    lines = zoo_table.totals([GOOD, GOOD, lost])
    assert lines[0] == "3 models: 2 at half of their MACs, 0 in part, 1 failed; 2 captured"
    assert lines[2] == "seconds: capture 2, analysis 0, plan 1, export 8"


def small_unet() -> Entry:
    return Entry("unet", lambda: UNet(8, 2), images(3, 16, 16))


def spoiled(network: fx.GraphModule) -> fx.GraphModule:
    """The last convolution reads its channels in the wrong order."""
    weight = network.get_parameter("head.weight")
    weight.data = weight.data.flip(1)
    return network


def test_wrong_compaction_is_found_by_the_oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    compact = zoo_run.compact
    monkeypatch.setattr(zoo_run, "compact", lambda *given: spoiled(compact(*given)))
    row = zoo_run.run("segmentation", small_unet())
    assert row.status == "FAIL"
    assert row.stage == "oracle"
    assert row.why.startswith("VerificationError: oracle: the pruned network differs")


def test_wrong_compaction_is_found_without_the_oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    compact = zoo_run.compact
    monkeypatch.setattr(zoo_run, "compact", lambda *given: spoiled(compact(*given)))
    monkeypatch.setattr(zoo_run, "check", lambda *given: OracleResult(0.0, 0.0, ""))
    row = zoo_run.run("segmentation", small_unet())
    assert row.status == "FAIL"
    assert row.onnx is not None
    assert row.onnx < 1e-4
    assert row.why.startswith("the model with zeroed parameters differs by")


def test_zeroing_a_grouped_convolution_counts_through_its_blocks() -> None:
    model = nn.Sequential(nn.Conv1d(4, 6, 1, groups=2))
    nn.init.ones_(model[0].weight)
    # Of the second block's two inputs (2 and 3 counted through), only the first stays.
    zero(model, {"0.weight": {0: (0, 1, 2, 3, 5), 1: (0, 1, 2)}})
    expected = [[1, 1], [1, 1], [1, 1], [1, 0], [0, 0], [1, 0]]
    assert model[0].weight[:, :, 0].tolist() == expected


def test_apart() -> None:
    one, two = torch.tensor([1.0, -4.0]), torch.tensor([1.5, -4.0])
    assert apart([one], [two]) == 0.125
    assert apart([one, one], [one, two]) == 0.125
    assert apart([one], [two.reshape(2, 1)]) == float("inf")
    assert apart([one], [torch.tensor([1.0, np.nan])]) == float("inf")


def test_livened_weights_leave_nothing_at_zero() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.quiet = nn.Conv2d(3, 8, 3)
            self.norm = nn.BatchNorm2d(8)
            self.scale = nn.Parameter(torch.full((8, 1, 1), 1e-6))
            self.head = nn.Linear(8, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head((self.norm(self.quiet(x)) * self.scale).mean((2, 3)))

    torch.manual_seed(0)
    model = Net()
    nn.init.normal_(model.quiet.weight, std=1e-5)
    nn.init.zeros_(model.norm.weight)
    nn.init.zeros_(model.head.weight)
    inputs = (torch.randn(4, 3, 8, 8),)
    liven(model, inputs, torch.Generator().manual_seed(0))
    assert not any(bool((item == 0).all()) for item in model.parameters())
    assert model.scale.min() > 0.01
    before_norm = model.quiet(*inputs).detach()
    assert before_norm.std() == pytest.approx(1.0, rel=0.01)
    normalised = (before_norm - model.norm.running_mean[:, None, None]).mean((0, 2, 3))
    assert normalised.abs().max() < 1e-5, "statistics are those of the rescaled convolution"
    assert not model.training


def test_every_family_has_distinct_names() -> None:
    for name in ("segmentation", "recurrent", "timm", "transformers"):
        names = [entry.name for entry in FAMILIES[name]()]
        assert len(names) == len(set(names)) > 0


@pytest.mark.parametrize(
    ("code", "errors", "expected"),
    [
        (-9, "", "killed by signal 9 (out of memory?)"),
        (-11, "", "killed by signal 11"),
        (1, 'Traceback\n  File "x"\nValueError: no\n', "ValueError: no"),
        (1, "a\ntorch._dynamo.exc.UserError: two\n  more\n", "torch._dynamo.exc.UserError: two"),
        (
            1,
            "Traceback\n  x = 1\nonnxruntime.capi.Fail: [one] two\n",
            "onnxruntime.capi.Fail: [one] two",
        ),
        (3, "nothing said", "exit code 3"),
    ],
)
def test_cause_of_a_crash(code: int, errors: str, expected: str) -> None:
    assert zoo._trouble(code, errors) == expected


def test_a_crash_costs_one_row(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The worker is replaced by one that gets somewhere with one model and dies with the other."""
    worker = tmp_path / "worker.py"
    worker.write_text(
        "import json, sys\n"
        "family, name, result, size = sys.argv[1:]\n"
        "row = dict(family=family, name=name, stage='plan', captured=True, dynamic_batch=True,\n"
        "           batches=[], frozen=[], unknown=[])\n"
        "if name == 'gru_1':\n"
        "    row['why'] = 'TargetError: no'\n"
        "open(result, 'w').write(json.dumps(row))\n"
        "if name == 'gru_3':\n"
        "    raise MemoryError('too much')\n"
    )
    result = tmp_path / "zoo.json"
    arguments = ["--family", "recurrent", "--filter", "^gru_.$", "--json", str(result)]
    assert run_zoo(monkeypatch, worker, arguments) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:3] == ["gru_1", "FAIL", "yes"]
    assert lines[1].endswith("TargetError: no")
    assert lines[2].split()[:3] == ["gru_3", "FAIL", "yes"]
    assert lines[2].endswith("plan: MemoryError: too much")
    assert "2 models: 0 at half of their MACs, 0 in part, 2 failed; 2 captured" in lines
    assert '"status": "FAIL"' in result.read_text()
    assert run_zoo(monkeypatch, worker, ["--family", "recurrent", "--filter", "nothing"]) == 2


def test_resume_keeps_what_is_known(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    result = tmp_path / "zoo.json"
    known = replace(GOOD, family="recurrent", name="gru_1")
    result.write_text(json.dumps({"rows": [known.to_json()]}))
    worker = tmp_path / "worker.py"
    worker.write_text("raise MemoryError('run again')")
    arguments = ["--family", "recurrent", "--filter", "^gru_.$", "--json", str(result), "--resume"]
    assert run_zoo(monkeypatch, worker, arguments) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == zoo_table.line(known, 5)
    assert lines[2].endswith("start: MemoryError: run again")


def run_zoo(monkeypatch: pytest.MonkeyPatch, worker: Path, arguments: Sequence[str]) -> int:
    monkeypatch.setattr(zoo, "WORKER", worker)
    monkeypatch.setattr(sys, "argv", ["zoo.py", *arguments])
    return zoo.main()
