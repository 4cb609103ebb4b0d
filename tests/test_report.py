"""Reports from literal records, compared whole with the texts in tests/golden.

After an intended change of wording: `PYTHONPATH=. python tests/test_report.py` writes the texts
anew; read the difference before committing it.
"""

import io
import json
import math
import os
import re
from collections import Counter
from dataclasses import fields, replace
from pathlib import Path

import pytest
from rich.console import Console

from prunecli.choices import Quantity, Strategy
from prunecli.parsing import parse_ratio, parse_target
from prunecli.report.as_json import to_json
from prunecli.report.lines import NO_DATA, NOTHING_WRITTEN, result_lines
from prunecli.report.record import (
    SCHEMA_VERSION,
    Asked,
    Checkpoint,
    Checks,
    Data,
    EpochRow,
    LatencySetup,
    Report,
    Requested,
    Row,
    RowName,
    Scoring,
    Split,
    Spread,
    Stage,
    Versions,
    compute_achieved,
    with_differences,
)
from prunecli.report.removed import FrozenRow, GroupRow
from prunecli.report.show import draw, show, to_text
from prunecli.tasks.classes import ACCURACY
from prunecli.tasks.numbers import MSE, R2

GOLDEN = Path(__file__).parent / "golden"


def asked(quantity: Quantity, text: str) -> Requested:
    target = parse_ratio(text) if quantity is Quantity.CHANNELS else parse_target(quantity, text)
    part = Asked(Strategy.STRUCTURED, "l2", target.in_words(), quantity)
    return Requested((part,), "one-shot", seed=0)


ROWS = with_differences(
    (
        Row(
            RowName.ORIGINAL,
            size_bytes=1_102_345,
            compressed_bytes=1_011_000,
            params=272_474,
            macs=40_552_000,
            latency_ms=Spread(0.70, 0.731, 0.784),
            speedup=Spread(1.0, 1.0, 1.0),
            score=0.8862,
        ),
        Row(
            RowName.PRUNED,
            size_bytes=650_001,
            compressed_bytes=599_999,
            params=159_321,
            macs=20_001_234,
            latency_ms=Spread(0.430, 0.4421, 0.4612),
            speedup=Spread(1.55, 1.653, 1.707),
            score=0.1684,
        ),
        Row(
            RowName.FINE_TUNED,
            size_bytes=650_001,
            compressed_bytes=600_123,
            params=159_321,
            macs=20_001_234,
            latency_ms=Spread(0.4302, 0.4419, 0.460),
            speedup=Spread(1.56, 1.655, 1.70),
            score=0.8518,
        ),
    )
)

FULL = Report(
    command="prunecli prune r20.pth --target-macs 50%",
    status="ok",
    versions=Versions("0.1.0", "3.11.7", "2.13.0", "1.23.2", "1.31.1"),
    checkpoint=Checkpoint("r20.pth", "ab" * 32, ("prefix `module.` removed",)),
    data=Data(
        "data/cifar10",
        "classification",
        "images scaled to 0-1, normalised per channel",
        (Split("train", 45_000), Split("held out", 5_000), Split("validation", 5_000)),
        skipped=1,
        notes=("labels are matched to outputs by their number",),
    ),
    requested=asked(Quantity.MACS, "50%"),
    achieved=compute_achieved(
        macs=(40_552_000, 20_001_234), params=(272_474, 159_321), channels=(336, 248)
    ),
    rows=ROWS,
    scoring=Scoring("accuracy", "validation", 5_000, True, 0.1, ACCURACY),
    latency=LatencySetup(threads=1, batch=1, rounds=42),
    groups=(
        GroupRow("g0", "channels", ("conv1", "bn1", "layer1.0.conv2", "linear"), 100, 112, 0.2, 3),
        GroupRow("g1", "channels", ("layer1[0].conv1",), 12, 16, 0.0123, 1.5),
        GroupRow("g2", "heads", (), 136, 208),
    ),
    frozen=(
        FrozenRow(("linear",), "the network's output keeps its size"),
        FrozenRow(("a", "b"), "no rule for aten.foo.default", "aten.foo.default"),
        FrozenRow(("b", "c", "d"), "no rule for aten.foo.default", "aten.foo.default"),
        FrozenRow((), "meets an axis without labels", "aten.add.Tensor"),
    ),
    checks=Checks(1.2e-6, 1e-4, 3.1e-6, 1e-4, (1, 3), 1_090_123, 638_000),
    training=(
        EpochRow(1, 0.9123, 0.8312, 0.02, 61.5),
        EpochRow(2, 0.5321, 0.8544, 0.0001, 60.25),
    ),
    best_epoch=2,
    files={"onnx": "out/r20.onnx", "pt2": "out/r20.pt2", "plan": "out/r20.plan.json"},
    warnings=("the machine is busy: latencies spread by 20%",),
    notes=("out/r20.pt2 can be trained further",),
    stages=(Stage("load", 0.5), Stage("capture", 1.25)),
)

WITHOUT_DATA = replace(
    FULL,
    command="prunecli prune net.pt2 --channel-ratio 0.3",
    data=None,
    scoring=None,
    training=(),
    best_epoch=None,
    requested=asked(Quantity.CHANNELS, "0.3"),
    achieved=compute_achieved(macs=(1_200, 640), params=(999, 512), channels=(10, 7)),
    rows=(
        Row(RowName.ORIGINAL, 5_120, 4_800, 999, 1_200, Spread(0.0101, 0.0107, 0.012),
            Spread(1, 1, 1)),
        Row(RowName.PRUNED, 3_072, 2_900, 512, 640, Spread(0.0099, 0.0105, 0.0118),
            Spread(0.97, 1.02, 1.06)),
    ),
    frozen=(),
    warnings=(),
    notes=(),
)  # fmt: skip

REGRESSION = replace(
    FULL,
    requested=asked(Quantity.PARAMS, "160k"),
    data=Data("houses.csv", "regression", "columns standardised", (Split("train", 100),)),
    scoring=Scoring("mse", "test", 25, False, 4.5, MSE, (R2,)),
    rows=with_differences(
        (
            Row(RowName.ORIGINAL, params=272_474, score=0.51234, others={"r2": 0.886}),
            Row(RowName.PRUNED, params=159_321, score=2.25, others={"r2": 0.5}),
            Row(RowName.FINE_TUNED, params=159_321, score=0.50, others={"r2": 0.8889}),
        )
    ),
    frozen=(),
    training=(EpochRow(1, 0.9, 0.498765, 0.01, 0.1),),
    best_epoch=1,
    latency=None,
    warnings=(),
    notes=(),
)

DRY_RUN = replace(
    FULL,
    dry_run=True,
    rows=(),
    latency=None,
    training=(),
    best_epoch=None,
    checks=Checks(1.2e-6, 1e-4),
    files={},
)

FAILED = replace(
    FULL,
    status="failed: verification",
    rows=(),
    training=FULL.training[:1],
    best_epoch=None,
    latency=None,
    checks=Checks(1.2e-6, 1e-4, 0.03, 1e-4, (1,), 1_000, 1_000),
    files={},
    warnings=(),
)

JUST_STARTED = Report(command="prunecli prune x.pth", status="running: load")

TEXTS = {
    "with_data": FULL,
    "without_data": WITHOUT_DATA,
    "regression": REGRESSION,
    "dry_run": DRY_RUN,
    "failed": FAILED,
    "just_started": JUST_STARTED,
}


def write_golden() -> None:
    for name, report in TEXTS.items():
        (GOLDEN / f"{name}.txt").write_text(to_text(report), encoding="utf-8")
    (GOLDEN / "with_data.json").write_text(to_json(FULL), encoding="utf-8")


@pytest.mark.parametrize("name", TEXTS)
def test_text(name: str) -> None:
    assert to_text(TEXTS[name]) == (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")


def test_json() -> None:
    assert to_json(FULL) == (GOLDEN / "with_data.json").read_text(encoding="utf-8")


# What must hold of any wording.


def table_of(text: str) -> list[list[str]]:
    """The plain table's rows, cells separated by two spaces or more."""
    block = text.split("\n\n")[0].splitlines()
    return [re.split(r" {2,}", line.strip()) for line in block if not line.startswith("--")]


@pytest.mark.parametrize("name", ["with_data", "without_data", "regression", "dry_run"])
def test_plain_tables_are_complete_and_aligned(name: str) -> None:
    block = to_text(TEXTS[name]).split("\n\n")[0].splitlines()
    rule = block[1]
    starts = [match.start() for match in re.finditer(r"-+", rule)]
    for line in block:
        # Between two columns there is always the gap, on every line.
        assert all(line[start - 2 : start].strip() == "" for start in starts[1:])
        assert line == line.rstrip()
        assert "…" not in line
    report = TEXTS[name]
    assert len(block) == 2 + (len(report.groups) + 1 if report.dry_run else len(report.rows))


def test_columns_and_rows() -> None:
    header, *rows = table_of(to_text(FULL))
    assert header == [
        "network",
        "size on disk",
        "compressed",
        "parameters",
        "MACs",
        "latency p50 (25-75%)",
        "speed-up (10-90%)",
        "accuracy",
        "difference (points)",
    ]
    assert [row[0] for row in rows] == ["original", "pruned, before fine-tuning", "final"]
    assert [row[-1] for row in rows] == ["0.00", "-71.78", "-3.44"]


def test_differences_are_what_the_scores_say() -> None:
    original, *others = ROWS
    assert original.score is not None
    assert original.score_difference == 0.0
    for row in others:
        assert row.score is not None
        assert row.score_difference == row.score - original.score


def test_differences_are_unknown_without_the_original() -> None:
    rows = with_differences((Row(RowName.ORIGINAL), Row(RowName.PRUNED, score=0.5)))
    assert [row.score_difference for row in rows] == [None, None]


def test_plan_totals_are_the_sums_of_the_groups() -> None:
    *groups, total = table_of(to_text(DRY_RUN))[1:]
    shares = [next(cell for cell in row if "/" in cell) for row in (*groups, total)]
    kept, whole = zip(*(map(int, share.split("/")) for share in shares), strict=True)
    assert (sum(kept[:-1]), sum(whole[:-1])) == (kept[-1], whole[-1])
    assert DRY_RUN.achieved is not None
    assert (whole[-1], kept[-1]) == (
        DRY_RUN.achieved.channels_before,
        DRY_RUN.achieved.channels_after,
    )


def test_shares() -> None:
    got = compute_achieved(macs=(200, 90), params=(1000, 600), channels=(10, 7))
    assert (got.macs_share, got.params_share, got.channels_removed_share) == (0.45, 0.6, 0.3)


def test_without_data_there_is_no_word_of_accuracy_but_the_reason() -> None:
    text = to_text(WITHOUT_DATA)
    assert [line for line in text.splitlines() if "accuracy" in line] == [NO_DATA]
    assert table_of(text)[0][-1].startswith("speed-up")


def test_dry_run_says_that_nothing_was_written_and_only_then() -> None:
    assert to_text(DRY_RUN).splitlines()[-1] == NOTHING_WRITTEN
    assert not any(NOTHING_WRITTEN in to_text(TEXTS[name]) for name in TEXTS if name != "dry_run")


@pytest.mark.parametrize(
    ("speedup", "words"),
    [
        (Spread(1.5, 1.6, 1.7), "measured 1.60x as fast (1.50x to 1.70x)"),
        (
            Spread(0.9, 1.02, 1.1),
            "measured 1.02x (0.90x to 1.10x), no clear difference from the original",
        ),
        (Spread(0.6, 0.7, 0.8), "measured 0.70x (0.60x to 0.80x), slower than the original"),
    ],
)
def test_speed_is_told_as_measured(speedup: Spread, words: str) -> None:
    report = replace(FULL, rows=(*ROWS[:2], replace(ROWS[2], speedup=speedup)))
    assert f"speed: 2.03x fewer MACs; {words}" in result_lines(report)


def test_a_difference_that_is_not_a_number_is_a_failed_check() -> None:
    report = replace(FULL, checks=Checks(onnx_difference=math.nan, onnx_tolerance=1e-4))
    assert "FAILED: onnxruntime differs from PyTorch by nan (tolerance 0.0001)" in result_lines(
        report
    )


def test_json_has_every_field_in_order_and_the_version_first() -> None:
    document = json.loads(to_json(FULL))
    names = [field.name for field in fields(Report)]
    assert list(document) == ["schema_version", *names, "not_finite"]
    assert document["schema_version"] == SCHEMA_VERSION
    assert document["not_finite"] == []
    assert document["requested"]["parts"][0]["quantity"] == "macs"
    assert document["rows"][2]["score"] == 0.8518


def test_json_has_no_nan_and_says_where_one_was() -> None:
    diverged = replace(
        FULL,
        training=(replace(FULL.training[0], train_loss=math.nan, score=-math.inf),),
        checks=replace(FULL.checks, onnx_difference=math.inf),
    )

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    document = json.loads(to_json(diverged), parse_constant=refuse)
    assert document["training"][0]["train_loss"] is None
    assert document["checks"]["onnx_difference"] is None
    assert document["not_finite"] == [
        "checks.onnx_difference",
        "training[0].train_loss",
        "training[0].score",
    ]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_pipes_get_the_plain_text_whatever_the_environment_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {
        "COLUMNS": "40",
        "CI": "true",
        "GITHUB_ACTIONS": "true",
        "FORCE_COLOR": "1",
        "TTY_COMPATIBLE": "1",
        "TERM": "dumb",
    }.items():
        monkeypatch.setenv(name, value)
    stream = io.StringIO()
    show(FULL, stream)
    assert stream.getvalue() == (GOLDEN / "with_data.txt").read_text(encoding="utf-8")


def drawn(report: Report, width: int) -> str:
    stream = io.StringIO()
    draw(report, Console(file=stream, force_terminal=True, width=width, height=50, no_color=True))
    return re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue())


def squeezed(text: str) -> str:
    return re.sub(r"\s+", "", text)


def table_of_values(name: str) -> list[str]:
    """All cells of the plain table, headers included."""
    return [cell for row in table_of(to_text(TEXTS[name])) for cell in row]


@pytest.mark.parametrize("width", [40, 80, 120, 200])
@pytest.mark.parametrize("name", ["with_data", "without_data", "regression"])
def test_terminals_of_any_width_show_every_value(name: str, width: int) -> None:
    text = drawn(TEXTS[name], width)
    assert "…" not in text
    table = text.split("\n\n")[0]
    assert all(len(line) <= width for line in table.splitlines())
    if width >= 80:  # narrower ones fold within words, but lose nothing either
        for row in table_of(to_text(TEXTS[name]))[1:]:
            words = " ".join(row[1:]).split()
            assert all(word in table for word in words)
    else:
        # Characters come in another order when they are folded, but all of them come.
        assert Counter(squeezed(table)) >= Counter(squeezed("".join(table_of_values(name))))
    for line in result_lines(TEXTS[name]):
        assert line in text


def test_a_wide_terminal_has_one_row_per_network_and_a_narrow_one_a_column() -> None:
    wide = drawn(FULL, 200).splitlines()
    assert sum("original" in line and "88.62%" in line for line in wide) == 1
    narrow = drawn(FULL, 100).splitlines()
    accuracy = next(line for line in narrow if line.strip().startswith("accuracy"))
    assert accuracy.split() == ["accuracy", "88.62%", "16.84%", "85.18%"]


def test_names_that_look_like_markup_are_shown_as_they_are() -> None:
    group = GroupRow("g0", "channels", ("layer1[red].conv1",), 1, 2)
    assert "layer1[red].conv1" in drawn(replace(DRY_RUN, groups=(group,)), 120)


@pytest.mark.parametrize(("no_color", "colours"), [("1", False), ("", True)])
def test_no_color(monkeypatch: pytest.MonkeyPatch, no_color: str, colours: bool) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "200")
    stream = Terminal()
    show(FULL, stream)
    assert ("\x1b[33m" in stream.getvalue()) is colours


def test_wide_characters_keep_columns_aligned() -> None:
    wide, narrow = "卷积卷积卷积", "c"
    groups = tuple(GroupRow("g", "channels", (name,), 1, 2) for name in (wide, narrow))
    rule, *rows = to_text(replace(DRY_RUN, groups=groups)).splitlines()[1:4]
    # Six characters of two cells each stand where twelve of one cell would.
    assert "  ------------  " in rule
    assert rows[0].index("1/2") == rows[1].index("1/2") - 6


@pytest.mark.parametrize(
    ("epochs", "shown"),
    [(0, []), (1, []), (2, [1, 2]), (6, [1, 2, 3, 4, 5, 6]), (51, [1, 11, 21, 31, 41, 51])],
)
def test_learning_curves_fit_a_line(epochs: int, shown: list[int]) -> None:
    rows = tuple(EpochRow(number, 1 / number, 0.5, 0.1, 1.0) for number in range(1, epochs + 1))
    lines = result_lines(replace(FULL, training=rows, best_epoch=None))
    found = [line for line in lines if line.startswith("learning curve: ")]
    assert [int(number) for line in found for number in re.findall(r"epoch (\d+) ", line)] == shown


def test_a_learning_curve_is_in_the_unit_of_the_score() -> None:
    rows = (EpochRow(1, 12.5, 1.25, 0.1, 1.0), EpochRow(2, 0.25, 0.5, 0.1, 1.0))
    line = "learning curve: epoch 1 loss 12.50 MSE 1.250; epoch 2 loss 0.2500 MSE 0.5000"
    assert line in result_lines(replace(REGRESSION, training=rows))
    failed = "learning curve: epoch 1 loss 12.50; epoch 2 loss 0.2500"
    assert failed in result_lines(replace(FAILED, training=rows, scoring=None))


if __name__ == "__main__":
    os.makedirs(GOLDEN, exist_ok=True)
    write_golden()
