"""Whatever is wrong with the input: one clear line, one hint, exit code 2, nothing written."""

import json
import re
import resource
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_making import (
    QUICK,
    Bench,
    Ended,
    coloured,
    files_in,
    run,
    run_line,
)

from prunecli.choices import CRITERIA, Strategy

NET = "--model {net} --data {data}"
GOOD = "{weights} " + NET
TARGET_TIP = "say what may stay: {} 50% keeps at most half; absolute numbers such as 20M work too"
ALL = ", ".join(item.value for item in CRITERIA[Strategy.STRUCTURED])


class _Touch:
    """Unpickling one creates a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.marker,)


@pytest.fixture(scope="session")
def bad(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of everything that can be wrong."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "text.pt").write_text("hello")
    (folder / "empty.pt").write_bytes(b"")
    (folder / "page.pth").write_text("<!DOCTYPE html><html><body>Not found</body></html>")
    whole = bench.weights.read_bytes()
    (folder / "cut.pt").write_bytes(whole[: len(whole) // 2])
    torch.save({"a": _Touch(folder / "marker")}, folder / "evil.pt")
    torch.save({"other.weight": torch.zeros(3)}, folder / "keys.pt")
    weights = torch.load(bench.weights)
    weights["4.bias"][3] = float("nan")
    torch.save(weights, folder / "nan.pt")
    images, labels = coloured(10)
    np.savez(folder / "numbers.npz", x=images, y=np.eye(3, dtype=np.float32)[labels] + 0.5)
    np.savez(folder / "beyond.npz", images=images, labels=labels + 4)
    np.savez(folder / "none.npz", images=images[:0], labels=labels[:0])
    (folder / "corrupt.npz").write_text("not an archive")
    (folder / "nothing").mkdir()
    (folder / "folder.onnx").mkdir()
    (folder / "file").write_text("x")
    (folder / "link.npz").symlink_to(bench.data)
    return folder


def case(args: str, error: str, tip: str, id: str, code: int = 2) -> object:
    return pytest.param(args, code, error, tip, id=id)


CHECKPOINTS = [
    case(
        "nothing.pt " + NET,
        "checkpoint nothing.pt: must exist, got no such file",
        ". holds no checkpoint: check the path",
        "missing",
    ),
    case(
        "{bad} " + NET,
        "checkpoint {bad}: must be a file or hold config.json, got a folder without one",
        "name the checkpoint file inside it",
        "folder",
    ),
    case(
        "{bad}/text.pt " + NET,
        "checkpoint {bad}/text.pt: must be a checkpoint, got a text file that starts with 'hello'",
        "name a .pt, .pth, .safetensors or .pt2 file",
        "text",
    ),
    case(
        "{bad}/empty.pt " + NET,
        "checkpoint {bad}/empty.pt: must hold weights, got an empty file",
        "the download or the save was interrupted: repeat it",
        "empty",
    ),
    case(
        "{bad}/cut.pt " + NET,
        "checkpoint {bad}/cut.pt: must be complete, got a truncated or damaged zip archive",
        "the file is cut off or damaged: download or copy it again",
        "truncated zip",
    ),
    case(
        "{bad}/page.pth " + NET,
        "checkpoint {bad}/page.pth: must be a checkpoint, got an HTML page",
        "the download saved a web page (a login or an error page): download the file itself",
        "html",
    ),
    case(
        "{bad}/evil.pt " + NET,
        "checkpoint {bad}/evil.pt: must hold only tensors and plain values, got a pickle that "
        "uses getattr",
        "save the state dict (torch.save(model.state_dict(), ...)); if you trust the file, add "
        "--allow-pickle: unpickling can run any code in it",
        "pickle that runs code",
    ),
    case(
        "{bad}/keys.pt " + NET,
        "checkpoint {bad}/keys.pt: keys and shapes must match {net}, got 10 missing (0.weight, "
        "0.bias, 1.weight, ...); 1 unexpected (other.weight)",
        "likely another architecture: check that --model {net} builds what was trained",
        "other keys",
    ),
    case(
        GOOD + " --model-arg classes=5",
        "checkpoint {weights}: keys and shapes must match {net}, got 2 of another shape "
        "(8.weight is (3, 16) in the checkpoint, (5, 16) in the model, 8.bias is (3,) in the "
        "checkpoint, (5,) in the model)",
        "a different number of classes: 8.weight is (3, 16) in the checkpoint, (5, 16) in the "
        "model: try --model-arg classes=3",
        "other shapes",
    ),
    case(
        "{bad}/nan.pt " + NET,
        "checkpoint {bad}/nan.pt: weights must be finite, got NaN in 4.bias (1 of 16)",
        "the training diverged before this was saved: use an earlier checkpoint",
        "NaN weights",
    ),
]

MODELS = [
    case(
        "{weights} --data {data}",
        "checkpoint {weights}: a state dict needs the model's code, got weights in the top level "
        "only",
        "name what builds the model: --model FILE.py:factory or package.module:factory",
        "no factory",
    ),
    case(
        "{weights} --model nothere.py:net --data {data}",
        "--model nothere.py:net: the file must exist, got no such file nothere.py",
        "check the path",
        "factory's file missing",
    ),
    case(
        "{weights} --model {net}work --data {data}",
        "--model {net}work: the factory must exist, got no 'network' in {source}",
        "did you mean net?",
        "no such factory",
    ),
    case(
        "{weights} --model no_such_package.models:net --data {data}",
        "--model no_such_package.models:net: the module must be importable, got no module named "
        "'no_such_package'",
        "install it, or give the file instead: --model path/to/net.py:factory",
        "no such package",
    ),
    case(
        "{weights} --model {source} --data {data}",
        "--model: FILE.py:factory or package.module:factory is needed, got '{source}'",
        "add a colon and the function or class that builds the model, e.g. --model net.py:build "
        "or --model torchvision.models:resnet18",
        "no colon",
    ),
    case(
        "{weights} --model {source}:broken --data {data}",
        "--model {source}:broken: raised KeyError: 'no such size' ({source}:…)",
        "run this code on its own to find the cause; --model-arg key=value passes arguments",
        "factory raises",
    ),
    case(
        GOOD + " --model-arg depth=1",
        "--model-arg depth: {net} must take it, got no such argument",
        "it takes classes, width",
        "unknown argument",
    ),
    case(
        GOOD + " --model-arg classes",
        "--model-arg: key=value is needed, got 'classes'",
        "e.g. --model-arg num_classes=10",
        "argument without value",
    ),
    case(
        "{program} --model {net}",
        "--model: an exported program needs none, got {net} for {program}",
        "drop --model, or give a state dict as the checkpoint",
        "program and factory",
    ),
    case(
        "{weights} --model {net}",
        "model: the shape of its input is not known",
        "give --input-shape 1,3,224,224 (batch, channels, height, width), or prune with --data; "
        "for anything else say --input 'input=int64[batch,seq]' for each input",
        "shape unknown",
    ),
    case(
        "{weights} --model {net} --input-shape 1,4,8,8",
        "model: rejects an input of shape (2, 4, 8, 8): Given groups=1, weight of size "
        "[8, 3, 3, 3], expected input[2, 4, 8, 8] to have 3 channels, but got 4 channels instead",
        "give the right --input-shape (batch, channels, height, width) or --image-size",
        "shape rejected",
    ),
    case(
        "{weights} --model {net} --input-shape 1,5",
        "model: rejects an input of shape (2, 5): Expected 3D (unbatched) or 4D (batched) input "
        "to conv2d, but got input of size: [2, 5]",
        "of a table name the columns that it takes (--input-column); without data, give the right "
        "--input-shape (batch, columns)",
        "table rejected",
    ),
    case(
        "{weights} --model {net} --input-shape 1,3,eight,8",
        "--input-shape: positive integers are needed, got '1,3,eight,8'",
        "for example --input-shape 1,3,224,224 (batch, channels, height, width)",
        "shape not a shape",
    ),
    case(
        "{weights} --model {net} --input-shape 1,3,99999999,99999999",
        "--input-shape: an input must fit the memory, got (1, 3, 99999999, 99999999)",
        "give the shape that the network was trained on",
        "shape enormous",
    ),
    case(
        "{program} --input-shape 1,3,9,9",
        "--input-shape: the program was exported for (2, 3, 8, 8), got (1, 3, 9, 9)",
        "drop --input-shape, or export the program again for that shape",
        "not the program's shape",
    ),
]

DATA = [
    case(
        "{weights} --model {net} --data nothere",
        "data nothere: no such file or folder",
        "check the path given to --data",
        "data missing",
    ),
    case(
        "{weights} --model {net} --data {bad}/nothing",
        "data {bad}/nothing: a folder of images or sounds, parquet, .npz or .npy, JSON lines, "
        "text, or CSV is needed, got an empty folder",
        "check the path given to --data",
        "folder empty",
    ),
    case(
        "{weights} --model {net} --data {bad}/none.npz",
        "none.npz: examples are needed, got empty arrays",
        "check --data",
        "array empty",
    ),
    case(
        "{weights} --model {net} --data {bad}/corrupt.npz",
        "data {bad}/corrupt.npz: it cannot be read as NumPy arrays: its content is not NumPy's "
        "format",
        "check the file, e.g. whether a download was cut short",
        "data corrupt",
    ),
    case(
        "{weights} --model {net} --data {bad}/beyond.npz",
        "data: classes must match the model's outputs, got 7 classes in the data, 3 outputs (the "
        "largest label is 6)",
        "labels count from 0; check that --data and the checkpoint belong together",
        "labels beyond outputs",
    ),
    case(
        GOOD + " --mean 0.5,0.5",
        "--mean: 1 or 3 numbers needed (3 channels), got 2",
        "give one number for all, or one for each channel",
        "too few means",
    ),
    case(
        GOOD + " --mean black",
        "--mean: numbers separated by commas are needed, got 'black'",
        "for example --mean 0.5,0.5,0.5",
        "mean no number",
    ),
    case(GOOD + " --std 1,0,1", "--std: must be above 0, got 0", "for example --std 0.5", "std 0"),
    case(
        "{program} --std 1",
        "--std: needs --data",
        "give --data PATH, or drop the flag",
        "std without data",
    ),
    case(
        GOOD + " --image-size 0",
        "--image-size: must be at least 1, got 0",
        "e.g. --image-size 224",
        "image size 0",
    ),
    case(
        GOOD + " --max-samples -3",
        "--max-samples: at least 2 are needed, got -3",
        "for example --max-samples 1000",
        "negative samples",
    ),
]

TARGETS = [
    *(
        case(
            f"{GOOD} {flag} {value}",
            f"{flag}: must lie between 0% and 100%, got '{value}'",
            TARGET_TIP.format(flag),
            f"{flag} {value}",
        )
        for flag in ("--target-macs", "--target-params")
        for value in ("0%", "100%", "150%", "-5%")
    ),
    case(
        GOOD + " --target-macs abc",
        "--target-macs: a percentage or a number is needed, got 'abc'",
        TARGET_TIP.format("--target-macs"),
        "--target-macs abc",
    ),
    case(
        GOOD + " --target-macs -5",
        "--target-macs: a percentage or a number is needed, got '-5'",
        TARGET_TIP.format("--target-macs"),
        "--target-macs -5",
    ),
    case(
        GOOD + " --target-macs 0.5",
        "--target-macs: an absolute target must be at least 1, got '0.5'",
        TARGET_TIP.format("--target-macs"),
        "--target-macs 0.5",
    ),
    case(
        GOOD + " --channel-ratio 1",
        "--channel-ratio: must lie between 0 and 1, got '1'",
        "say what goes: --channel-ratio 0.3 (or 30%) removes 30% of the channels",
        "--channel-ratio 1",
    ),
    case(
        GOOD + " --target-macs 50% --channel-ratio 0.5",
        "target: one is needed, got --target-macs and --channel-ratio",
        "keep one of them",
        "two targets",
    ),
    case(
        GOOD + " --target-macs 1G",
        "--target-macs: the original already meets 1G (it has 32304)",
        "ask for less than the original has",
        "target above the original",
    ),
    case(
        GOOD + " --criterion beauty",
        f"--criterion: must be one of {ALL}, got 'beauty'",
        "e.g. --criterion l2",
        "unknown criterion",
    ),
]

NUMBERS = [
    case(
        GOOD + " --epochs -1",
        "--epochs: 0 or more is needed, got -1",
        "--epochs 0 trains nothing",
        "negative epochs",
    ),
    case(
        GOOD + " --batch-size 0",
        "--batch-size: at least 1 is needed, got 0",
        "for example --batch-size 32",
        "batch size 0",
    ),
    case(
        GOOD + " --batch-size 1",
        "--batch-size: batch norm needs at least 2 examples to train on, got 1",
        "raise --batch-size, give more data, or use --epochs 0",
        "batch size 1 under batch norm",
    ),
    case(
        GOOD + " --lr 0",
        "--lr: a positive number is needed, got 0",
        "leave --lr out for …",
        "rate 0",
    ),
    case(
        GOOD + " --seed -1",
        "--seed: 0 to 4294967295 is needed, got -1",
        "e.g. --seed 0",
        "negative seed",
    ),
    case(
        GOOD + " --threads 0",
        "--threads: at least 1 is needed, got 0",
        "e.g. --threads 1",
        "no threads",
    ),
    case(
        GOOD + " --latency-batch 0",
        "--latency-batch: at least 1 is needed, got 0",
        "e.g. --latency-batch 1",
        "empty latency batch",
    ),
    case(
        GOOD + " --latency-seconds 0",
        "--latency-seconds: a positive number is needed, got 0",
        "e.g. --latency-seconds 3",
        "no time",
    ),
    case(
        GOOD + " --atol nan",
        "--atol: 0 or more is needed, got nan",
        "e.g. --atol 1e-4",
        "tolerance NaN",
    ),
    case(
        GOOD + " --atol 0",
        "export: onnxruntime and PyTorch differ by …, allowed are 0.0e+00",
        "no file was written; if the difference is acceptable to you, raise --atol",
        "verification fails",
        code=1,
    ),
]

OUTPUTS = [
    case(
        GOOD + " -o {bad}/file/r.onnx",
        "output folder {bad}/file/r.run cannot be created: Not a directory",
        "choose another place with -o or --report",
        "file for a folder",
    ),
    case(
        GOOD + " -o {bad}/file/deep/r.onnx",
        "output folder {bad}/file/deep cannot be created: Not a directory",
        "choose another place with -o or --report",
        "file above the folder",
    ),
    case(
        GOOD + " -o {bad}/folder.onnx",
        "output {bad}/folder.onnx is a folder",
        "give a file's name, inside it or beside it",
        "folder for a file",
    ),
    case(
        GOOD + " -o r.pt2",
        "-o: an ONNX file is written, its name must end in .onnx, got r.pt2",
        "-o r.onnx",
        "not an ONNX name",
    ),
    case(
        GOOD + " --report {bad}/file/r.json",
        "output folder {bad}/file is not writable: Not a directory",
        "choose another place with -o or --report",
        "report under a file",
    ),
    case(
        GOOD + " --report {bad}",
        "output {bad} is a folder",
        "give a file's name, inside it or beside it",
        "report on a folder",
    ),
    case(
        "{program} -o {bench}/program.onnx",
        "-o: the pt2 file must not overwrite the checkpoint, got {program}",
        "choose another name with -o",
        "over the checkpoint",
    ),
    case(
        GOOD + " --report {bad}/link.npz",
        "--report: the report file must not overwrite the data, got {bad}/link.npz",
        "choose another name with --report",
        "over the data",
    ),
    case(
        GOOD + " -o a.onnx --report a.run/plan.json",
        "--report: the report file must not overwrite the plan file, got a.run/plan.json",
        "choose another name with --report",
        "report over the plan",
    ),
]

USAGE = [
    case("", "Missing argument 'CHECKPOINT'.", "see: prunecli prune --help", "nothing"),
    case(
        GOOD + " --target-mac 30%",
        "No such option: --target-mac …",
        "see: prunecli prune --help",
        "unknown flag",
    ),
    case(
        GOOD + " --epochs",
        "Option '--epochs' requires an argument.",
        "see: prunecli prune --help",
        "flag without value",
    ),
    case(
        GOOD + " --epochs many",
        "Invalid value for '--epochs': …",
        "see: prunecli prune --help",
        "flag of another type",
    ),
    case(
        GOOD + " --optimizer lion",
        "--optimizer: must be one of sgd, momentum, nesterov, adam, adamw, rmsprop, adagrad or a "
        "class of torch.optim, got 'lion'",
        "e.g. --optimizer adamw",
        "unknown optimizer",
    ),
    case(
        GOOD + " another.pt",
        "Got unexpected extra argument(s) (another.pt)",
        "see: prunecli prune --help",
        "two checkpoints",
    ),
]

TRAINING = [
    case(
        GOOD + " --optimizer Rprop --weight-decay 0.1",
        "--weight-decay: Rprop has none",
        "leave it out, or use another --optimizer, such as adamw",
        "decay of an optimizer without",
    ),
    case(
        GOOD + " --train-scope ''",
        "--train-scope: all, local, or patterns separated by commas are needed, got ''",
        "e.g. --train-scope 'layer3.*,fc'",
        "empty scope",
    ),
    case(
        GOOD + " --train-scope 0,,8",
        "--train-scope: all, local, or patterns separated by commas are needed, got '0,,8'",
        "e.g. --train-scope 'layer3.*,fc'",
        "empty pattern in a scope",
    ),
    case(
        GOOD + " --patience 0",
        "--patience: at least 1 is needed, got 0",
        "e.g. --patience 3",
        "no patience",
    ),
    case(
        GOOD + " --epochs 3 --patience 3",
        "--patience: must be less than the epochs, got 3 of 3",
        "raise --epochs, or leave it out",
        "patience without an end",
    ),
    case(
        GOOD + " --epochs 6 --patience 2 --schedule iterative",
        "--patience: must be less than the epochs, got 2 of 2 in each round",
        "raise --epochs, or leave it out",
        "patience without an end in rounds",
    ),
    case(
        "{weights} --model {net} --input-shape 1,3,8,8 --ema 0.9",
        "--ema: is about training, got no --data",
        "give --data PATH",
        "average without training data",
    ),
    case(
        GOOD + " --epochs 0 --augment strong",
        "--augment strong: is about training, got --epochs 0",
        "raise --epochs",
        "augmentation without training",
    ),
    case(
        GOOD + " --until-recovered near",
        "--until-recovered: a number is needed, got 'near'",
        "e.g. --until-recovered 0.5",
        "margin in words",
    ),
    case(
        GOOD + " --until-recovered 101%",
        "--until-recovered: 0 to 100 percent of the score are needed, got '101%'",
        "e.g. --until-recovered 1pp (points), or --until-recovered 5% (of what the original "
        "scores)",
        "margin of everything",
    ),
    case(
        GOOD + " --max-epochs 5",
        "--max-epochs: has no effect without --until-recovered",
        "use --epochs, or add --until-recovered 0.3pp",
        "most epochs of nothing",
    ),
    case(
        GOOD + " --epochs 3 --until-recovered 1pp --max-epochs 2",
        "--max-epochs: at least --epochs 3 is needed, got 2",
        "raise --max-epochs, or lower --epochs",
        "fewer epochs than at first",
    ),
    case(
        GOOD + " --ema 1",
        "--ema: between 0 and 1 is needed, got 1",
        "e.g. --ema 0.999",
        "average of nothing new",
    ),
    case(
        GOOD + " --distill-features nan",
        "--distill-features: 0 or more is needed, got nan",
        "1 makes features count like the outputs",
        "features NaN",
    ),
    case(
        GOOD + " --distill-features 1 --epochs 0",
        "--distill-features: is about training, got --epochs 0",
        "raise --epochs",
        "features without training",
    ),
    case(
        GOOD + " --mixup 0",
        "--mixup: from 0.01 to 100 is needed, got 0",
        "e.g. --mixup 0.2",
        "mixup without a share",
    ),
    case(
        GOOD + " --cutmix nan",
        "--cutmix: from 0.01 to 100 is needed, got nan",
        "e.g. --cutmix 1",
        "cutmix NaN",
    ),
    case(
        "{weights} --model {net} --data {bad}/numbers.npz --mixup 0.2",
        "--mixup: mixes classes of whole examples, got data for regression",
        "leave --mixup out",
        "mixup of numbers",
    ),
    case(
        GOOD + " --log-dir {bad}/file/logs",
        "--log-dir: must be a folder, got the file {bad}/file",
        "choose another place",
        "log in a file",
    ),
]


@pytest.mark.parametrize(
    ("args", "code", "error", "tip"),
    [*CHECKPOINTS, *MODELS, *DATA, *TARGETS, *NUMBERS, *OUTPUTS, *USAGE, *TRAINING],
)
def test_bad_input_ends_in_one_line_and_one_hint(
    args: str, code: int, error: str, tip: str, bench: Bench, bad: Path, here: Path
) -> None:
    names = {
        "bench": bench.folder,
        "net": bench.net,
        "source": bench.net.rpartition(":")[0],
        "weights": bench.weights,
        "program": bench.program,
        "data": bench.data,
        "bad": bad,
    }
    before = files_in(bench.folder), files_in(bad)

    ended = run_line("prune " + args.format(**names))

    assert ended.code == code
    assert ended.out == ""
    assert_one_line_each(ended, error.format(**names), tip.format(**names))
    assert files_in(here) == []
    assert (files_in(bench.folder), files_in(bad)) == before


def assert_one_line_each(ended: Ended, error: str, tip: str) -> None:
    """The last two lines are the error and the hint, and nothing else looks like trouble. `…`
    stands for anything."""
    lines = ended.err.splitlines()
    assert [line.split()[0] for line in lines].count("ERROR") == 1
    for line, wanted in zip(lines[-2:], (f"ERROR {error}", f"TIP {tip}"), strict=True):
        pattern = ".*".join(map(re.escape, wanted.split("…")))
        assert re.fullmatch(pattern, line), f"{line!r} is not {wanted!r}"
    assert "Traceback" not in ended.err
    assert "Warning" not in ended.err


def test_command_itself_may_be_wrong(here: Path) -> None:
    for line, error in (
        ("prone net.pt", "No such command 'prone'…"),
        ("--nothing", "No such option: --nothing"),
    ):
        ended = run_line(line)
        assert ended.code == 2
        assert_one_line_each(ended, error, "see: prunecli prune --help")


@pytest.mark.parametrize("flag", ["--target-macs", "--target-params", "--channel-ratio"])
def test_target_out_of_reach_names_the_smallest_which_then_works(
    flag: str, bench: Bench, here: Path
) -> None:
    asked = "0.99" if flag == "--channel-ratio" else "1%"
    ended = run("prune", *bench.usual, "--dry-run", flag, asked)
    assert ended.code == 2
    assert_one_line_each(
        ended,
        f"{flag}: {asked} cannot be reached, at least …% of the original (…) stay",
        f"…{flag} …",
    )
    named = re.findall(rf"{flag} ([0-9.]+%?)", ended.err.splitlines()[-1])[0]

    assert run("prune", *bench.usual, "--dry-run", flag, named).code == 0
    if flag == "--channel-ratio":
        harder = f"{float(named) + 0.01:.2f}"
    else:
        harder = f"{float(named.rstrip('%')) - 0.1:.1f}%"
    assert run("prune", *bench.usual, "--dry-run", flag, harder).code == 2


def test_folders_made_for_a_run_that_fails_go_again(bench: Bench, here: Path) -> None:
    ended = run("prune", *bench.usual, "--target-macs", "1%", "-o", "new/deep/net.onnx")
    assert ended.code == 2
    assert files_in(here) == []


def test_report_of_a_run_that_fails_stays_and_says_why(bench: Bench, here: Path) -> None:
    ended = run(
        "prune", *bench.usual, "--atol", "0", "-o", "new/net.onnx", "--report", "new/net.json"
    )
    assert ended.code == 1
    assert files_in(here) == ["new", "new/net.json"]
    report = json.loads((here / "new" / "net.json").read_text())
    assert report["status"].startswith("failed: export original: export: onnxruntime and PyTorch")
    assert [stage["name"] for stage in report["stages"]] == [
        "load",
        "data",
        "capture",
        "analyse",
    ]


def test_results_of_an_earlier_run_survive_one_that_fails(bench: Bench, here: Path) -> None:
    (here / "net.run").mkdir()
    earlier = ["net.onnx", "net.pt2", "net.run/plan.json", "net.run/run.json"]
    for name in earlier:
        (here / name).write_text(name)
    assert run("prune", *bench.usual, "--atol", "0", "-o", "net.onnx").code == 1
    assert files_in(here) == sorted([*earlier, "net.run"])
    assert all((here / name).read_text() == name for name in earlier)


@pytest.mark.parametrize(
    ("limit", "name"), [(4_000, "net.onnx"), (20_000, "net.pt2")], ids=["onnx", "pt2"]
)
def test_disk_that_is_full_ends_in_one_line(
    limit: int, name: str, bench: Bench, here: Path
) -> None:
    """A limit on the size of files stands in for a full disk: the same refusal, midway."""
    _, hard = before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        ended = run("prune", bench.program, *QUICK, "-o", "net.onnx")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (ended.code, ended.out) == (2, ""), ended
    assert_one_line_each(
        ended,
        f"{name} cannot be written: …",
        "choose another place with -o or --report; to go on: prunecli resume net.run",
    )
    assert files_in(here)[:2] == ["net.run", "net.run/state"]
    assert all(path.startswith("net.run/state/") for path in files_in(here)[2:])
