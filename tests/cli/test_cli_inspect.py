"""`prunecli inspect`: what it says, against counts made by hand, and how it ends."""

import io
import json
import re
import shlex
from pathlib import Path

import pytest
import torch
from cli_making import ROOT, Bench, Ended, files_in, run, run_apart, run_line
from rich.console import Console
from torch import nn

import prunecli
from prunecli.report.advice import NO_RULE, advice
from prunecli.report.as_json import to_json
from prunecli.report.inspection import WHAT_SHARES_MEAN, inspection_cells, inspection_lines
from prunecli.report.show import draw

SHAPE = ("--input-shape", "1,3,8,8")

ODD_SOURCE = """
from torch import Tensor, nn


class Half(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(3, 16, 3)
        self.narrow = nn.Conv2d(16, 4, 3)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.narrow(self.wide(x).renorm(2, 1, 1.0)).mean((2, 3)))


class Nothing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(3, 16, 3)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.wide(x).renorm(2, 1, 1.0).mean((2, 3)))
"""


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `odd.py`, networks with an operator that has no rule, and weights for them."""
    folder = tmp_path_factory.mktemp("odd")
    (folder / "odd.py").write_text(ODD_SOURCE)
    torch.manual_seed(0)
    parts = {"wide": nn.Conv2d(3, 16, 3), "narrow": nn.Conv2d(16, 4, 3), "head": nn.Linear(4, 3)}
    torch.save(nn.ModuleDict(parts).state_dict(), folder / "half.pt")
    parts = {"wide": nn.Conv2d(3, 16, 3), "head": nn.Linear(16, 3)}
    torch.save(nn.ModuleDict(parts).state_dict(), folder / "nothing.pt")
    return folder


def inspect_odd(odd: Path, name: str, *more: str) -> Ended:
    factory = f"{odd / 'odd.py'}:{name.capitalize()}"
    return run("inspect", odd / f"{name}.pt", "--model", factory, *SHAPE, *more)


def macs(first: int, second: int) -> int:
    """Of the bench's network with these widths, for one image of 8 x 8 pixels."""
    return 27 * first * 64 + 9 * first * second * 16 + 3 * second


def params(first: int, second: int) -> int:
    return 27 * first + 3 * first + 9 * first * second + second + 3 * second + 3


DO = advice(NO_RULE)
INPUT = "meets the network's input [aten.conv2d]"


def test_table_of_a_small_network_is_that_counted_by_hand(bench: Bench, here: Path) -> None:
    ended = run("inspect", bench.weights, "--model", bench.net, *SHAPE)
    assert ended.code == 0, ended.err
    header, _, *rest = ended.out.splitlines()
    assert re.split(r" {2,}", header) == [
        "group",
        "kind",
        "layers",
        "size",
        "may go",
        "share of MACs",
        "share of parameters",
        "frozen",
    ]
    gone = [
        f"{100 * (1 - count(*widths) / count(8, 16)):.1f}%"
        for widths in ((1, 16), (8, 1))
        for count in (macs, params)
    ]
    assert [re.split(r" {2,}", row) for row in rest[: rest.index("")]] == [
        ["0", "channels", "0, 1, 4", "8", "7", *gone[:2], "no"],
        ["4", "channels", "4, 8", "16", "15", *gone[2:], "no"],
        ["0", "-", "0", "-", "0", "-", "-", INPUT],
        ["8", "-", "8", "-", "0", "-", "-", "network output"],
    ]
    assert rest[rest.index("") + 1] == WHAT_SHARES_MEAN
    assert "\x1b" not in ended.out
    assert files_in(here) == []


def test_json_holds_the_same_unrounded(bench: Bench, here: Path) -> None:
    ended = run("inspect", bench.weights, "--model", bench.net, *SHAPE, "--json", "-q")
    assert (ended.code, ended.err) == (0, "")
    found = json.loads(ended.out)
    assert found["schema_version"] == 2
    assert (found["macs"], found["params"]) == (macs(8, 16), params(8, 16))
    assert (found["smallest_macs"], found["smallest_params"]) == (macs(1, 1), params(1, 1))
    first, second = found["groups"]
    assert first["macs_share"] == pytest.approx(1 - macs(1, 16) / macs(8, 16))
    assert second["params_share"] == pytest.approx(1 - params(8, 1) / params(8, 16))
    assert ["8"] in [row["layers"] for row in found["frozen"] if row["reason"] == "network output"]
    assert found["unknown"] == []


def test_python_gets_what_the_command_prints(bench: Bench) -> None:
    config = prunecli.ModelConfig(bench.weights, bench.net, {"width": "8"}, (1, 3, 8, 8))
    found = prunecli.inspect(config, prunecli.make_reporter(quiet=True))
    ended = run(
        *("inspect", bench.weights, "--model", bench.net, "--model-arg", "width=8", *SHAPE),
        "--json",
    )
    assert ended.out == to_json(found)


def test_terminal_gets_every_cell_and_line(bench: Bench) -> None:
    found = prunecli.inspect(
        prunecli.ModelConfig(bench.program), prunecli.make_reporter(quiet=True)
    )
    stream = io.StringIO()
    draw(found, Console(file=stream, force_terminal=True, width=160, no_color=True))
    text = re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue())
    for cell in (part for row in inspection_cells(found).rows for part in row):
        assert cell in text
    for line in inspection_lines(found):
        assert line in text


def test_program_needs_nothing_else(bench: Bench, here: Path) -> None:
    ended = run("inspect", bench.program)
    assert ended.code == 0, ended.err
    assert f"next: prunecli prune {bench.program} --data PATH --target-macs 50%" in ended.out


def test_operator_without_a_rule_is_named_with_what_it_freezes(odd: Path, here: Path) -> None:
    ended = inspect_odd(odd, "half")
    assert ended.code == 0, ended.err
    lines = ended.out.splitlines()
    assert [line.split()[0] for line in lines[2:3]] == ["narrow"]
    source = next(
        place
        for place, text in enumerate((odd / "odd.py").read_text().splitlines(), start=1)
        if "renorm" in text
    )
    called = f"no rule for aten.renorm, called in the network itself (odd.py:{source}): {DO}"
    assert called in lines
    assert any(line.endswith("no rule for this operator [aten.renorm]") for line in lines)


def test_suggested_command_asks_for_what_can_be_reached(
    bench: Bench, odd: Path, here: Path
) -> None:
    ended = inspect_odd(odd, "half", "-q", "--json")
    found = json.loads(ended.out)
    words = shlex.split(found["next_command"])
    share = 100 * found["smallest_macs"] / found["macs"]
    percent = float(words[words.index("--target-macs") + 1].rstrip("%"))
    assert share <= percent < share + 0.1
    assert percent > 50

    data = str(bench.data)
    suggested = [data if word == "PATH" else word for word in words[1:]]
    assert run(*suggested, "--dry-run").code == 0


def test_nothing_to_prune_ends_with_the_reasons(odd: Path, here: Path) -> None:
    ended = inspect_odd(odd, "nothing", "-q")
    assert (ended.code, ended.out) == (1, "")
    error, tip = ended.err.splitlines()
    assert error.startswith("ERROR network: nothing can be pruned: wide: no rule for this operator")
    assert "(aten.renorm)" in error
    assert tip.startswith("TIP no rule for aten.renorm, called in the network itself (odd.py:")
    assert tip.endswith(DO)
    assert (ROOT / "docs" / "operators.md").is_file()


@pytest.mark.parametrize(
    ("line", "error", "tip"),
    [
        ("nothere.pt", "checkpoint nothere.pt: must exist, got no such file", None),
        ("{weights} --model {net}", "model: the shape of its input is not known", None),
        ("{weights} --model {net} --data x", "No such option: --data", "prunecli inspect --help"),
        ("{program} --target-macs 50%", "No such option: --target-macs", None),
    ],
)
def test_bad_input_ends_in_one_line_and_one_hint(
    line: str, error: str, tip: str | None, bench: Bench, here: Path
) -> None:
    names = {"weights": bench.weights, "net": bench.net, "program": bench.program}
    ended = run_line("inspect -q " + line.format(**names))
    assert (ended.code, ended.out) == (2, "")
    first, second = ended.err.splitlines()
    assert first.startswith(f"ERROR {error}")
    assert second.startswith("TIP ")
    assert tip is None or second.endswith(tip)


def test_result_stands_alone_on_stdout(bench: Bench, here: Path) -> None:
    chatty = bench.net.replace(":net", ":chatty")
    ended = run_apart("inspect", bench.weights, "--model", chatty, *SHAPE, "--json", cwd=here)
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["groups"]
    assert "building the network" in ended.err.splitlines()
    assert "Warning" not in ended.err
