"""Networks with several inputs on the command line, from weights to an ONNX file that runs."""

import shlex
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from cli_making import QUICK, run

SOURCE = """
import torch
from torch import Tensor, nn


class Match(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(40, 16)
        self.text = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 8))
        self.numbers = nn.Sequential(nn.Linear(5, 32), nn.ReLU(), nn.Linear(32, 8))
        self.head = nn.Linear(8, 3)

    def forward(self, ids: Tensor, table: dict[str, Tensor]) -> dict[str, Tensor]:
        text = self.text(self.words(ids)).mean(1)
        both = text * self.numbers(table["numbers"])
        return {"answer": self.head(both), "alike": both.sum(1)}
"""

INPUTS = ("--input", "ids=int64[batch,seq]", "--input", "table.numbers=float32[batch,5]")


@pytest.fixture(scope="module")
def match(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("match")
    (folder / "match.py").write_text(SOURCE)
    space: dict[str, type[torch.nn.Module]] = {}
    exec(SOURCE, space)
    torch.manual_seed(0)
    torch.save(space["Match"]().state_dict(), folder / "match.pt")
    return folder


def words(match: Path) -> list[str]:
    return [str(match / "match.pt"), "--model", f"{match / 'match.py'}:Match"]


def test_pruned_file_takes_both_inputs_of_any_length(match: Path, here: Path) -> None:
    ended = run("prune", *words(match), *INPUTS, *QUICK, "-o", "small.onnx")
    assert ended.code == 0, ended.err
    assert "no --data: nothing was trained" in ended.out
    session = onnxruntime.InferenceSession("small.onnx", providers=["CPUExecutionProvider"])
    described = {item.name: (item.type, item.shape) for item in session.get_inputs()}
    assert described == {
        "ids": ("tensor(int64)", ["batch", "seq"]),
        "table_numbers": ("tensor(float)", ["batch", 5]),
    }
    assert [item.name for item in session.get_outputs()] == ["answer", "alike"]
    for batch, length in ((1, 3), (4, 90)):
        feed = {
            "ids": np.zeros((batch, length), dtype=np.int64),
            "table_numbers": np.zeros((batch, 5), dtype=np.float32),
        }
        answer, alike = session.run(None, feed)
        assert answer.shape == (batch, 3)
        assert alike.shape == (batch,)


def test_the_written_program_can_be_pruned_again(match: Path, here: Path) -> None:
    first = run("prune", *words(match), *INPUTS, *QUICK, "-o", "small.onnx")
    assert first.code == 0, first.err
    again = run("prune", "small.pt2", *QUICK, "-o", "smaller.onnx")
    assert again.code == 0, again.err
    sizes = [Path(name).stat().st_size for name in ("small.onnx", "smaller.onnx")]
    assert sizes[1] < sizes[0]
    session = onnxruntime.InferenceSession("smaller.onnx", providers=["CPUExecutionProvider"])
    assert session.get_inputs()[1].shape == ["batch", 5]


def test_suggested_command_passes_the_inputs_on(match: Path, here: Path) -> None:
    ended = run("inspect", *words(match), *INPUTS)
    assert ended.code == 0, ended.err
    (suggested,) = (line for line in ended.out.splitlines() if line.startswith("next: "))
    command = shlex.split(suggested.removeprefix("next: prunecli "))
    assert [*INPUTS] == command[command.index("--input") : command.index("--input") + 4]
    assert "--data" not in command, "no data set that can be read has two inputs"
    assert run(*command, "--dry-run").code == 0


@pytest.mark.parametrize(
    ("inputs", "error"),
    [
        (("ids",), "--input: name=dtype[shape] is needed, got 'ids'"),
        (("ids=int64",), "--input: name=dtype[shape] is needed, got 'ids=int64'"),
        (("ids=int63[batch]",), "--input ids: one of float32, float64, int64, int32, int16, int8"),
        (("ids=int64[batch,]",), "--input ids: an axis is a number, or a name where it is free"),
        (("ids=int64[batch,0]",), "--input ids: an axis is a number, or a name where it is free"),
        (("ids=int64[n,n]",), "--input ids: axes must have different names, got 'n,n'"),
        (("ids=int64[n,4]", "ids=int64[n,4]"), "--input: ids is given twice"),
        (("words=int64[n,4]",), "--input words: must be an input of the network"),
        (("ids=int64[n,4]",), "--input: every input without a default is needed, got none for ta"),
        (
            ("ids=float32[n,4]", "table.numbers=float32[n,5]"),
            "model: rejects inputs of shapes ids (2, 4), table.numbers (2, 5): ",
        ),
    ],
)
def test_wrong_inputs_end_in_one_line(
    inputs: tuple[str, ...], error: str, match: Path, here: Path
) -> None:
    flags = [word for text in inputs for word in ("--input", text)]
    ended = run("prune", *words(match), *flags, "-q")
    assert ended.code == 2
    first, second = ended.err.splitlines()
    assert first.startswith(f"ERROR {error}")
    assert second.startswith("TIP ")
    assert list(here.iterdir()) == []


def test_data_is_refused_where_it_cannot_fit(match: Path, bench: object, here: Path) -> None:
    np.savez("data.npz", x=np.zeros((40, 5), dtype=np.float32), y=np.arange(40) % 3)
    ended = run("prune", *words(match), *INPUTS, "--data", "data.npz", "-q", "-o", "out/a.onnx")
    assert ended.code == 2
    assert ended.err.startswith(
        "ERROR data: the network takes ids, table_numbers, got one input without a name"
    )
    assert not Path("out").exists() or list(Path("out").iterdir()) == []


def test_both_forms_at_once_are_refused(match: Path) -> None:
    ended = run("prune", *words(match), *INPUTS, "--input-shape", "1,5")
    assert ended.code == 2
    assert ended.err.startswith("ERROR --input-shape: is the short form of one --input, got both")
