"""What a good run leaves, checked against the files themselves and counts made by hand."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from cli_making import (
    CLASSES,
    EACH,
    QUICK,
    SIZE,
    Bench,
    Good,
    coloured,
    files_in,
    image_folder,
    run,
)

import prunecli
from prunecli.choices import Quantity

Json = dict[str, Any]


@pytest.fixture(scope="session")
def report(good: Good) -> Json:
    found = json.loads(good.beside(".json").read_text())
    assert isinstance(found, dict)
    return found


def ask(onnx_file: Path, images: np.ndarray) -> np.ndarray:
    """Outputs of the file for uint8 images that are scaled to 0-1."""
    session = onnxruntime.InferenceSession(onnx_file, providers=["CPUExecutionProvider"])
    inputs = images.astype(np.float32) / 255
    return np.asarray(session.run(None, {session.get_inputs()[0].name: inputs})[0])


def weights_of(program: Path) -> dict[str, torch.Tensor]:
    return dict(torch.export.load(program).named_parameters())


def macs_by_hand(weights: dict[str, torch.Tensor]) -> int:
    """Of the bench's network for one image, from its weights' shapes."""
    wide, narrow = SIZE * SIZE, SIZE * SIZE // 4
    return (
        weights["0.weight"].numel() * wide
        + weights["4.weight"].numel() * narrow
        + weights["8.weight"].numel()
    )


def in_run(name: str) -> list[str]:
    """What a run leaves for later."""
    return [f"{name}.run", f"{name}.run/plan.json", f"{name}.run/run.json"]


def test_good_run_leaves_four_files_and_nothing_else(good: Good) -> None:
    assert good.ended.code == 0, good.ended.err
    assert files_in(good.onnx.parent) == ["net.json", "net.onnx", "net.pt2", *in_run("net")]


def test_table_is_complete_and_aligned_when_piped(good: Good) -> None:
    header, rule, *rest = good.ended.out.splitlines()
    rows = rest[: rest.index("")]
    assert re.split(r" {2,}", header) == [
        "network",
        "size on disk",
        "compressed",
        "parameters",
        "MACs",
        "latency p50 (25-75%)",
        "speed-up (10-90%)",
        "accuracy",
        "difference (points)",
        "macro F1",
    ]
    assert [row.split("  ")[0] for row in rows] == [
        "original",
        "pruned, before fine-tuning",
        "final",
    ]
    assert all(len(re.split(r" {2,}", row)) == 10 for row in rows)
    columns = [match.end() for match in re.finditer("-+", rule)]
    assert all(len(row) == columns[-1] for row in rows), "numbers end where their column ends"
    assert "\x1b" not in good.ended.out


def test_lines_under_the_table_name_every_file(good: Good) -> None:
    lines = good.ended.out.splitlines()
    for kind, path in (("onnx", good.onnx), ("pt2", good.beside(".pt2"))):
        assert f"wrote {kind}: {path}" in lines
    assert f"wrote run: {good.plan.with_name('run.json')}" in lines
    assert f"wrote plan: {good.plan}" in lines
    assert f"wrote report: {good.beside('.json')}" in lines
    assert any(line.startswith("asked: keep at most 50% of the MACs; got: ") for line in lines)


def test_progress_names_the_stages_in_order_on_stderr(good: Good) -> None:
    titles = [
        "loading weights.pt",
        "capturing the network",
        "exporting the original",
        "analysing and planning",
        "removing and checking against the original",
        "exporting the pruned network",
        "fine-tuning, epoch 1/1",
        "exporting the fine-tuned network",
        "measuring latency",
    ]
    lines = good.ended.err.splitlines()
    assert [line for line in lines if line in titles] == titles
    assert "Warning" not in good.ended.err


def test_report_says_what_was_asked_and_what_ran(good: Good, report: Json, bench: Bench) -> None:
    assert report["schema_version"] == 2
    assert report["status"] == "ok"
    assert report["command"].startswith("prunecli prune ")
    assert report["requested"]["parts"][0]["words"] == "keep at most 50% of the MACs"
    sha256 = hashlib.sha256(bench.weights.read_bytes()).hexdigest()
    assert report["checkpoint"]["sha256"] == sha256
    assert report["data"]["splits"][-1] == {"name": "validation", "examples": CLASSES * EACH}
    assert [stage["name"] for stage in report["stages"]] == [
        "load",
        "data",
        "capture",
        "analyse",
        "export original",
        "score original",
        "plan",
        "compact",
        "reconstruct",
        "export pruned",
        "score pruned",
        "fine-tune",
        "export fine-tuned",
        "score fine-tuned",
        "measure",
        "write",
    ]
    assert report["files"] == {
        "onnx": str(good.onnx),
        "pt2": str(good.beside(".pt2")),
        "plan": str(good.plan),
        "run": str(good.plan.with_name("run.json")),
        "report": str(good.beside(".json")),
    }


def test_counts_are_those_of_the_weights(good: Good, report: Json, bench: Bench) -> None:
    original, pruned, final = report["rows"]
    before, after = weights_of(bench.program), weights_of(good.beside(".pt2"))
    assert original["params"] == sum(weight.numel() for weight in before.values())
    assert final["params"] == sum(weight.numel() for weight in after.values())
    assert original["macs"] == macs_by_hand(before)
    assert final["macs"] == macs_by_hand(after) <= original["macs"] / 2
    assert (pruned["params"], pruned["macs"]) == (final["params"], final["macs"])
    assert report["achieved"]["macs_after"] == final["macs"]
    assert report["achieved"]["macs_share"] == final["macs"] / original["macs"]


def test_size_and_accuracy_are_those_of_the_file(good: Good, report: Json) -> None:
    final = report["rows"][-1]
    assert final["name"] == "fine-tuned"
    assert final["size_bytes"] == good.onnx.stat().st_size
    images, labels = coloured(EACH, seed=1)
    right = ask(good.onnx, images).argmax(1) == labels
    assert final["score"] == pytest.approx(right.mean(), abs=1e-9)
    assert final["score_difference"] == final["score"] - report["rows"][0]["score"]


def test_onnx_takes_any_batch_and_equals_the_program(good: Good) -> None:
    images, _ = coloured(EACH, seed=2)
    program = torch.export.load(good.beside(".pt2")).module()
    for batch in (1, 2, 5, len(images)):
        some = images[:batch]
        expected = program(torch.tensor(some).float() / 255).detach().numpy()
        np.testing.assert_allclose(ask(good.onnx, some), expected, atol=1e-5)
    [source] = onnx.load(good.onnx).graph.input
    assert [dim.dim_param or dim.dim_value for dim in source.type.tensor_type.shape.dim] == [
        "batch",
        3,
        SIZE,
        SIZE,
    ]


def test_onnx_says_what_made_it_and_no_more(good: Good, report: Json, bench: Bench) -> None:
    model = onnx.load(good.onnx)
    said = {item.key: item.value for item in model.metadata_props}
    sha256 = hashlib.sha256(bench.weights.read_bytes()).hexdigest()
    assert said["prunecli.checkpoint_sha256"] == sha256
    assert said["prunecli.checkpoint"] == "weights.pt"
    assert said["prunecli.command"] == report["command"]
    assert said["prunecli.plan"] == good.plan.read_text()
    assert said["prunecli.version"] == report["versions"]["prunecli"]
    for name in ("torch", "onnx", "onnxruntime"):
        assert f"{name} {report['versions'][name]}" in said["prunecli.versions"]
    assert b"site-packages" not in good.onnx.read_bytes(), "the exporter notes stack traces"


def test_plan_lists_what_stays_of_every_tensor(good: Good, bench: Bench) -> None:
    [step] = json.loads(good.plan.read_text())["steps"]
    assert step["removes"] == "units"
    plan = step["plan"]
    before, after = weights_of(bench.program), weights_of(good.beside(".pt2"))
    for name, axes in plan["tensors"].items():
        for axis, kept in axes.items():
            assert kept == sorted(set(kept))
            assert kept[-1] < (before | dict_of_buffers(bench.program))[name].shape[int(axis)]
            if name in after:
                assert after[name].shape[int(axis)] == len(kept)
    assert plan["tensors"]["0.weight"]["0"] == plan["tensors"]["4.weight"]["1"]
    assert plan["target"] == "keep at most 50% of the MACs"


def dict_of_buffers(program: Path) -> dict[str, torch.Tensor]:
    return dict(torch.export.load(program).named_buffers())


def test_pruned_program_can_be_pruned_again(good: Good, here: Path) -> None:
    ended = run("prune", good.beside(".pt2"), "--target-params", "70%", *QUICK)
    assert ended.code == 0, ended.err
    assert files_in(here) == ["net-pruned.onnx", "net-pruned.pt2", *in_run("net-pruned")]
    once, twice = weights_of(good.beside(".pt2")), weights_of(here / "net-pruned.pt2")
    count = sum(weight.numel() for weight in once.values())
    assert sum(weight.numel() for weight in twice.values()) <= 0.7 * count


def test_same_seed_gives_the_same_plan_and_accuracy(
    good: Good, report: Json, bench: Bench, here: Path
) -> None:
    ended = run("prune", *bench.usual, "-o", "net.onnx", "--report", "net.json", "--seed", "0")
    assert ended.code == 0
    assert (here / "net.run" / "plan.json").read_bytes() == good.plan.read_bytes()
    again = json.loads((here / "net.json").read_text())
    assert [row["score"] for row in again["rows"]] == [row["score"] for row in report["rows"]]
    assert [row["train_loss"] for row in again["training"]] == [
        row["train_loss"] for row in report["training"]
    ]


@pytest.mark.parametrize(("rows", "epochs"), [(1, "0"), (2, "1"), (4, "1")])
def test_model_that_fixes_its_batch_ships_with_it(
    rows: int, epochs: str, bench: Bench, here: Path
) -> None:
    model = bench.net.replace(":net", ":fixed")
    ended = run(
        *("prune", bench.weights, "--model", model, "--model-arg", f"rows={rows}", *QUICK),
        *("--input-shape", f"{rows},3,8,8", "--data", bench.data, "-o", "net.onnx"),
        *("--epochs", epochs),
    )
    assert ended.code == 0, ended.err
    assert f"note: the model fixes its batch: batch {rows} ships" in ended.out.splitlines()
    session = onnxruntime.InferenceSession(here / "net.onnx")
    assert session.get_inputs()[0].shape == [rows, 3, SIZE, SIZE]


def test_safetensors_with_data_and_no_training(bench: Bench, here: Path) -> None:
    ended = run(
        *("prune", bench.folder / "weights.safetensors", "--model", bench.net, *QUICK),
        *("--data", bench.data, "--epochs", "0", "-o", "net.onnx", "--json"),
    )
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    assert [row["name"] for row in found["rows"]] == ["original", "pruned"]
    assert found["training"] == []
    assert found["rows"][0]["score"] > 0.9


def test_broken_image_among_good_ones_is_skipped_counted_and_named(
    bench: Bench, here: Path
) -> None:
    data = image_folder(here / "images")
    (data / "class1" / "broken.png").write_bytes(b"no image")
    ended = run("prune", bench.program, "--data", data, *QUICK, "-o", "net.onnx", "--json")
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    assert found["data"]["skipped"] == 1
    assert sum(split["examples"] for split in found["data"]["splits"]) == 60
    warning = (
        "WARNING 1 of 61 images are broken and left out, e.g. class1/broken.png: not an image in "
        "a known format"
    )
    assert warning in ended.err.splitlines()


def test_original_that_guesses_is_pointed_out_before_anything_else(
    bench: Bench, here: Path
) -> None:
    images, labels = coloured(EACH)
    wrong_labels = (labels + 1) % CLASSES
    np.savez("wrong.npz", x_train=images, y_train=labels, x_test=images, y_test=wrong_labels)
    ended = run(
        *("prune", bench.weights, "--model", bench.net, "--data", "wrong.npz", *QUICK),
        *("--epochs", "0", "-o", "net.onnx"),
    )
    assert ended.code == 0
    wrong = "the preprocessing (--mean, --std, --image-size) or the labels are wrong"
    lines = ended.err.splitlines()
    [place] = [index for index, line in enumerate(lines) if line.startswith("WARNING the original")]
    assert lines[place].endswith(wrong)
    assert place < lines.index("analysing and planning")
    under = ended.out.splitlines()
    assert under[under.index("") + 1] == lines[place]


@pytest.mark.parametrize(
    ("flags", "words", "quantity", "most"),
    [
        (["--target-macs", "40%"], "keep at most 40% of the MACs", "macs", 0.4),
        (["--target-macs", "20k"], "keep at most 20k MACs", "macs", 20_000),
        (["--target-params", "50%"], "keep at most 50% of the parameters", "params", 0.5),
        (["--target-params", "700"], "keep at most 700 parameters", "params", 700),
        (["--channel-ratio", "0.25"], "remove 25% of the channels", "channels", 0.75),
        (["--channel-ratio", "25%"], "remove 25% of the channels", "channels", 0.75),
        ([], "keep at most 50% of the MACs", "macs", 0.5),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_targets_are_met_and_never_overshot_by_much(
    flags: list[str], words: str, quantity: str, most: float, bench: Bench, here: Path
) -> None:
    ended = run("prune", bench.program, "--dry-run", "--json", "--round-to", "1", *flags)
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    assert found["requested"]["parts"][0]["words"] == words
    before, after = (found["achieved"][f"{quantity}_{when}"] for when in ("before", "after"))
    limit = most if most > 1 else most * before
    assert after <= limit
    assert after >= limit - 0.05 * before, "the network is tiny: one channel is up to 5%"


def test_dry_run_shows_groups_and_prediction_and_writes_nothing(bench: Bench, here: Path) -> None:
    ended = run("prune", *bench.usual, "--dry-run", "-o", "new/net.onnx", "--report", "net.json")
    assert ended.code == 0
    assert files_in(here) == []
    header, _, *rest = ended.out.splitlines()
    groups = [re.split(r" {2,}", line) for line in rest[: rest.index("")]]
    assert re.split(r" {2,}", header) == ["group", "kind", "layers", "kept/total", "kept", "scores"]
    total = groups.pop()
    assert [group[2] for group in groups] == ["0, 1, 4", "4, 8"]
    assert [group[3].split("/")[1] for group in groups] == ["8", "16"]
    kept = sum(int(group[3].split("/")[0]) for group in groups)
    assert total[:2] == ["all", f"{kept}/24"]
    assert all(re.fullmatch(r"[0-9.]+ to [0-9.]+", group[5]) for group in groups)
    said = rest[rest.index("") :]
    assert any(
        re.match(r"asked: .*; predicted: [0-9.]+% left \(32\.3 k -> ", line) for line in said
    )
    assert any(line.startswith("parameters: ") for line in said)
    assert said[-1] == "dry run: nothing was written"


def half() -> prunecli.Removal:
    target = prunecli.parse_target(Quantity.MACS, "50%")
    return prunecli.Removal(units=prunecli.UnitsWanted(target))


def test_same_from_python(bench: Bench, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = prunecli.RunConfig(
        model=prunecli.ModelConfig(bench.program),
        removal=half(),
        output=here / "net.onnx",
        measure=prunecli.MeasureConfig(seconds=0.01),
    )
    found = prunecli.prune(config, prunecli.make_reporter(quiet=True))
    assert found.status == "ok"
    assert found.achieved is not None
    assert found.achieved.macs_share <= 0.5
    assert capsys.readouterr() == ("", "")
    assert files_in(here) == ["net.onnx", "net.pt2", *in_run("net")]


def test_python_gets_errors_as_exceptions(bench: Bench, here: Path) -> None:
    config = prunecli.RunConfig(
        model=prunecli.ModelConfig(here / "nothing.pt2"),
        removal=prunecli.Removal(units=prunecli.UnitsWanted(prunecli.parse_ratio("0.5"))),
    )
    with pytest.raises(prunecli.PrunecliError, match="must exist, got no such file"):
        prunecli.prune(config, prunecli.make_reporter(quiet=True))


def test_dry_run_predicts_what_the_run_then_does(report: Json, bench: Bench, here: Path) -> None:
    ended = run("prune", *bench.usual, "--dry-run", "--json")
    predicted = json.loads(ended.out)
    assert predicted["dry_run"] is True
    assert predicted["achieved"] == report["achieved"]
    assert predicted["groups"] == report["groups"]
