"""Bad checkpoints: one clear line each, with a hint."""

import json
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from crafted import NET_SOURCE, Net, plain_pickled, rewrite, save_program, trained
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import prune

from prunecli.config import ModelConfig
from prunecli.errors import CheckpointError, ConfigError, PrunecliError
from prunecli.loading import load_model

SHARED = Path(__file__).parents[2].parent / "shared"


@pytest.fixture
def factory(tmp_path: Path) -> str:
    (tmp_path / "net.py").write_text(NET_SOURCE)
    return f"{tmp_path / 'net.py'}:Net"


def caught(config: ModelConfig, kind: type[PrunecliError] = CheckpointError) -> tuple[str, str]:
    """Message and hint of the one error; both are one line, and the exit code is 2."""
    with pytest.raises(kind) as raised:
        load_model(config)
    error = raised.value
    assert error.exit_code == 2
    assert error.hint
    assert "\n" not in error.message + error.hint
    assert "Traceback" not in error.message
    return error.message, error.hint


def write(data: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(data) and None


def save(held: object, **options: Any) -> Callable[[Path], None]:
    return lambda path: torch.save(held, path, **options)


def cut(make: Callable[[Path], None], share: float) -> Callable[[Path], None]:
    def make_cut(path: Path) -> None:
        make(path)
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * share)])

    return make_cut


def make_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/notes.txt", "hello")


def make_tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.add(__file__, "x.py")


def make_torchscript(path: Path) -> None:
    # The members that tell such an archive, without the deprecated call that writes one.
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("data.pkl", "constants.pkl", "code/__torch__.py"):
            archive.writestr(f"m/{name}", "x")


def make_old_program(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("serialized_exported_program.json", "{}")
        archive.writestr("version", "8.8")


STATE = trained().state_dict()
NAN = {**STATE, "conv.weight": STATE["conv.weight"].clone()}
NAN["conv.weight"][0, 0, 0, 0] = torch.nan
INFINITE = {**STATE, "norm.running_var": torch.tensor([1.0, torch.inf, torch.inf, 2.0])}
OPTIMIZER = torch.optim.Adam(trained().parameters())
sum(p.sum() for p in OPTIMIZER.param_groups[0]["params"]).backward()
OPTIMIZER.step()
DOWNLOAD = "the file is cut off or damaged: download or copy it again"

# What makes the file, what the message must say, what the hint must say.
FILES: list[Any] = [
    pytest.param(
        lambda path: path.mkdir(),
        "or hold config.json, got a folder without one",
        "inside it",
        id="folder",
    ),
    pytest.param(write(b""), "must hold weights, got an empty file", "interrupted", id="empty"),
    pytest.param(
        write(b"epoch,loss\n1,0.5\n" * 200),
        "got a text file that starts with 'epoch,loss 1,0.5",
        "name a .pt, .pth, .safetensors or .pt2 file",
        id="text",
    ),
    pytest.param(
        write("größe ✓\n".encode() * 200), "got a text file that starts with 'größe", "", id="utf-8"
    ),
    pytest.param(
        write(b"\n  <!DOCTYPE html>\n<html><body>Sign in</body></html>"),
        "must be a checkpoint, got an HTML page",
        "the download saved a web page",
        id="html",
    ),
    pytest.param(
        write(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
        "must be a checkpoint, got a Git LFS pointer",
        "git lfs pull",
        id="lfs",
    ),
    pytest.param(write(b"\x1f\x8b\x08" + bytes(50)), "got a compressed file", "unpack", id="gzip"),
    pytest.param(make_tar, "got a tar archive", "unpack", id="tar"),
    pytest.param(write(b"\x89HDF\r\n\x1a\n" + bytes(50)), "got an HDF5 file", "PyTorch", id="hdf5"),
    pytest.param(
        write(bytes(range(256)) * 3), "got an unknown binary format", ".safetensors", id="binary"
    ),
    pytest.param(
        make_zip, "got a zip archive that holds model/notes.txt", "unpack it first", id="zip"
    ),
    pytest.param(
        make_torchscript,
        "got a TorchScript archive",
        "torch.export.export, or give its",
        id="script",
    ),
    pytest.param(
        make_old_program, "saved by torch 2.8 or later", "torch.export.export", id="old-program"
    ),
    pytest.param(
        cut(save(STATE), 0.6),
        "must be complete, got a truncated or damaged zip archive",
        DOWNLOAD,
        id="truncated-zip",
    ),
    pytest.param(
        cut(save(STATE, _use_new_zipfile_serialization=False), 0.8),
        "must be complete, got",
        DOWNLOAD,
        id="truncated-legacy",
    ),
    pytest.param(
        cut(save(STATE, _use_new_zipfile_serialization=False), 0.1),
        "must be complete, got",
        DOWNLOAD,
        id="truncated-legacy-early",
    ),
    pytest.param(
        cut(save(trained(), _use_new_zipfile_serialization=False), 0.3),
        "must be complete, got a damaged pickle",
        DOWNLOAD,
        id="truncated-legacy-module",
    ),
    pytest.param(
        cut(lambda path: save_file(STATE, path), 0.8),
        "must be complete, got SafetensorError",
        DOWNLOAD,
        id="truncated-safetensors",
    ),
    pytest.param(
        cut(lambda path: save_file(STATE, path), 0.1),
        "must be complete, got a truncated safetensors file",
        DOWNLOAD,
        id="truncated-safetensors-header",
    ),
    pytest.param(
        write(struct.pack("<Q", 9) + b'{"a": 1}}' + bytes(9)),
        "must be complete, got SafetensorError",
        DOWNLOAD,
        id="broken-safetensors",
    ),
    pytest.param(
        write(plain_pickled({"w": 1})),
        "must be written by torch.save, got a plain Python pickle",
        "--allow-pickle",
        id="plain-pickle",
    ),
    pytest.param(
        save(trained()),
        "must hold only tensors and plain values, got a pickle that uses crafted.Net",
        "save the state dict (torch.save(model.state_dict(), ...)); if you trust the file, "
        "add --allow-pickle",
        id="pickled-module",
    ),
    pytest.param(
        save(STATE, pickle_protocol=4),
        "got a pickle protocol that cannot be read safely",
        "--allow-pickle",
        id="protocol-4",
    ),
    pytest.param(
        save(NAN),
        "weights must be finite, got NaN in conv.weight (1 of 108)",
        "use an earlier checkpoint",
        id="nan",
    ),
    pytest.param(
        save(INFINITE),
        "weights must be finite, got infinite values in norm.running_var (2 of 4)",
        "diverged",
        id="infinite",
    ),
    pytest.param(
        save({"epoch": 3, "acc": 0.5}),
        "must hold weights, got a dict without tensors (keys: epoch, acc)",
        "torch.save(model.state_dict(), ...)",
        id="no-tensors",
    ),
    pytest.param(save({}), "must hold weights, got an empty dict", "state_dict", id="empty-dict"),
    pytest.param(save([1, 2]), "must hold a state dict, got a list", "state_dict", id="list"),
    pytest.param(
        save(torch.ones(3)), "must hold a state dict, got a Tensor", "state_dict", id="tensor"
    ),
    pytest.param(
        save({"optimizer": OPTIMIZER.state_dict(), "epoch": 3}),
        "must hold the model's weights, got only an optimizer's state",
        "model.state_dict()",
        id="optimizer",
    ),
    pytest.param(
        save(OPTIMIZER.state_dict()),
        "must hold the model's weights, got only an optimizer's state",
        "model.state_dict()",
        id="bare-optimizer",
    ),
]


@pytest.mark.parametrize(("make", "text", "hint"), FILES)
def test_bad_files(
    tmp_path: Path, factory: str, make: Callable[[Path], None], text: str, hint: str
) -> None:
    path = tmp_path / "c.pth"
    make(path)
    before = sorted(tmp_path.iterdir())
    message, got_hint = caught(ModelConfig(path, factory))
    assert message.startswith(f"checkpoint {path}: ")
    assert text in message
    assert hint in got_hint
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_cut_anywhere(tmp_path: Path, factory: str, legacy: bool) -> None:
    """No cut brings up an exception of the reader's own, or loads."""
    path = tmp_path / "c.pth"
    torch.save(STATE, path, _use_new_zipfile_serialization=not legacy)
    data = path.read_bytes()
    for size in range(1, len(data), 23):
        path.write_bytes(data[:size])
        message, _ = caught(ModelConfig(path, factory))
        assert "must " in message


def test_missing_file_lists_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "best.pth").touch()
    (tmp_path / "notes.txt").touch()
    path = tmp_path / "bset.pth"
    assert caught(ModelConfig(path)) == (
        f"checkpoint {path}: must exist, got no such file",
        f"{tmp_path} holds best.pth",
    )
    message, hint = caught(ModelConfig(tmp_path / "no" / "c.pth"))
    assert "must exist" in message
    assert hint == f"the folder {tmp_path / 'no'} does not exist: check the path"


def test_state_dict_without_model(tmp_path: Path) -> None:
    path = tmp_path / "c.pth"
    torch.save({"state_dict": STATE}, path)
    message, hint = caught(ModelConfig(path))
    assert 'a state dict needs the model\'s code, got weights in "state_dict" only' in message
    assert "--model FILE.py:factory or package.module:factory" in hint


def test_arguments_without_model(tmp_path: Path) -> None:
    message, hint = caught(ModelConfig(tmp_path / "c.pth", args={"classes": "3"}), ConfigError)
    assert message == "--model-arg: needs --model, got classes without it"
    assert "--model FILE.py:factory" in hint


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "m.pt2"
    save_program(path, trained(), torch.randn(2, 3, 8, 8))
    return path


def test_program_with_model(program: Path, factory: str) -> None:
    message, hint = caught(ModelConfig(program, factory), ConfigError)
    assert message == f"--model: an exported program needs none, got {factory} for {program}"
    assert "drop --model" in hint


def test_truncated_program(program: Path) -> None:
    program.write_bytes(program.read_bytes()[:3000])
    message, hint = caught(ModelConfig(program))
    assert "got a truncated or damaged zip archive" in message
    assert hint == DOWNLOAD


@pytest.mark.parametrize(
    "member", ["models/model.json", "data/weights/model_weights_config.json", "archive_version"]
)
@pytest.mark.parametrize("data", [b"", b"{", b"[]"])
@pytest.mark.parametrize("allow_pickle", [False, True])
def test_damaged_program(program: Path, member: str, data: bytes, allow_pickle: bool) -> None:
    path = program.with_name("damaged.pt2")
    rewrite(program, path, lambda members: members.update({member: data}))
    message, hint = caught(ModelConfig(path, allow_pickle=allow_pickle), PrunecliError)
    assert message.startswith(f"checkpoint {path}: ")
    assert "export the model again" in hint


def test_program_of_another_name(program: Path) -> None:
    path = program.with_name("other.pt2")
    rewrite(program, path, lambda m: m.update({"models/net.json": m.pop("models/model.json")}))
    message, hint = caught(ModelConfig(path))
    assert "must hold an exported program named 'model', got programs named net" in message
    assert "torch.export.save" in hint


def test_program_on_cuda(program: Path) -> None:
    path = program.with_name("cuda.pt2")
    config = "data/weights/model_weights_config.json"

    def move(members: dict[str, bytes]) -> None:
        parsed = json.loads(members[config])
        parsed["config"]["conv.weight"]["tensor_meta"]["device"] = {"type": "cuda", "index": 0}
        members[config] = json.dumps(parsed).encode()

    rewrite(program, path, move)
    message, hint = caught(ModelConfig(path))
    assert "must be exported on the CPU, got conv.weight on cuda" in message
    assert "move_to_device_pass(program, 'cpu')" in hint


def test_program_in_half_precision(tmp_path: Path) -> None:
    path = tmp_path / "half.pt2"
    save_program(path, nn.Linear(2, 2).half(), torch.randn(1, 2).half())
    message, hint = caught(ModelConfig(path))
    assert "weights must be float32, got float16 in weight" in message
    assert "model.float()" in hint


def test_program_with_nan(tmp_path: Path) -> None:
    path, net = tmp_path / "nan.pt2", trained()
    with torch.no_grad():
        net.linear.bias[1] = torch.nan
    save_program(path, net, torch.randn(2, 3, 8, 8))
    message, _ = caught(ModelConfig(path))
    assert "weights must be finite, got NaN in linear.bias (1 of 3)" in message


def test_pickled_module_of_an_unknown_class(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    torch.save(trained(), path)
    data = path.read_bytes().replace(b"crafted", b"nowhere")
    path.write_bytes(data)
    message, hint = caught(ModelConfig(path, allow_pickle=True))
    assert "every class in it must be importable, got No module named 'nowhere'" in message
    assert "save the state dict and give --model" in hint


def test_pickled_module_of_the_training_script(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    torch.save(trained(), path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes().replace(b"ccrafted\nNet", b"c__main__\nNet"))
    message, hint = caught(ModelConfig(path, allow_pickle=True))
    assert "every class in it must be importable, got " in message
    assert "__main__" in message
    assert hint == (
        "the class was defined in a script that ran itself: save the state dict and give --model"
    )


def test_pickled_module_with_nan(tmp_path: Path) -> None:
    path, net = tmp_path / "c.pt", trained()
    with torch.no_grad():
        net.conv.bias[0] = -torch.inf
    torch.save(net, path)
    message, _ = caught(ModelConfig(path, allow_pickle=True))
    assert "weights must be finite, got infinite values in conv.bias (1 of 4)" in message


def pruned() -> dict[str, torch.Tensor]:
    net = trained()
    prune.l1_unstructured(net.conv, "weight", 0.5)
    return net.state_dict()


def renamed(old: str, new: str) -> dict[str, torch.Tensor]:
    return {key.replace(old, new, 1): value for key, value in STATE.items()}


# A state dict that does not fit Net, what the message must say, the whole hint but for the model.
MISFITS: list[Any] = [
    pytest.param(
        Net(classes=100).state_dict(),
        "got 2 of another shape (linear.weight is (100, 4) in the checkpoint, (3, 4) in the model, "
        "linear.bias is (100,) in the checkpoint, (3,) in the model)",
        "a different number of classes: linear.weight is (100, 4) in the checkpoint, "
        "(3, 4) in the model: try --model-arg classes=100",
        id="classes",
    ),
    pytest.param(
        {**STATE, "conv.weight": torch.ones(4, 1, 3, 3)},
        "got 1 of another shape (conv.weight is (4, 1, 3, 3) in the checkpoint",
        "a different number of input channels: conv.weight is (4, 1, 3, 3) in the checkpoint, "
        "(4, 3, 3, 3) in the model: build it so in {model}",
        id="input-channels",
    ),
    pytest.param(
        {**STATE, "conv.weight": torch.ones(4, 3, 5, 5)},
        "(conv.weight is (4, 3, 5, 5) in the checkpoint, (4, 3, 3, 3) in the model)",
        "likely another architecture: check that --model {model} builds what was trained",
        id="kernel",
    ),
    pytest.param(
        nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)).state_dict(),
        "got 8 missing (conv.weight, conv.bias, norm.weight, ...); "
        "4 unexpected (0.weight, 0.bias, 1.weight, ...)",
        "likely another architecture: check that --model {model} builds what was trained",
        id="architecture",
    ),
    pytest.param(
        {f"backbone.{key}": value for key, value in STATE.items()},
        "got 8 missing (conv.weight, conv.bias, norm.weight, ...); "
        "9 unexpected (backbone.conv.weight, ",
        "the checkpoint's keys carry the prefix backbone.: give a factory that builds "
        "the same wrapper, or save the inner model's state dict",
        id="prefix",
    ),
    pytest.param(
        {key: value for key, value in STATE.items() if "linear" not in key},
        "got 2 missing (linear.weight, linear.bias)",
        "likely a smaller variant of the architecture: --model {model} has more layers",
        id="smaller",
    ),
    pytest.param(
        {**STATE, "extra.weight": torch.ones(2)},
        "got 1 unexpected (extra.weight)",
        "likely a larger variant of the architecture: --model {model} has fewer layers",
        id="larger",
    ),
    pytest.param(
        pruned(),
        "1 missing (conv.weight); 2 unexpected (conv.weight_orig, conv.weight_mask)",
        "torch.nn.utils.prune was active: call prune.remove on every layer and save again",
        id="pruned",
    ),
    pytest.param(
        renamed("linear", "head"),
        "2 missing (linear.weight, linear.bias); 2 unexpected (head.weight, head.bias)",
        "likely another architecture: check that --model {model} builds what was trained",
        id="renamed",
    ),
]


@pytest.mark.parametrize(("state", "text", "hint"), MISFITS)
def test_misfits(
    tmp_path: Path, factory: str, state: dict[str, torch.Tensor], text: str, hint: str
) -> None:
    path = tmp_path / "c.pth"
    torch.save(state, path)
    message, got_hint = caught(ModelConfig(path, factory))
    assert message.startswith(f"checkpoint {path}: keys and shapes must match {factory}, got ")
    assert text in message
    assert got_hint == hint.format(model=factory)


def test_model_inside_a_wrapper(tmp_path: Path) -> None:
    wrapper = (
        "\nclass Outer(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.body = Net()\n"
    )
    (tmp_path / "net.py").write_text(NET_SOURCE + wrapper)
    path = tmp_path / "c.pth"
    torch.save(STATE, path)
    _, hint = caught(ModelConfig(path, f"{tmp_path / 'net.py'}:Outer"))
    assert hint.startswith("the model's keys carry the prefix body. and the checkpoint's do not")


def test_best_of_several_is_reported(tmp_path: Path, factory: str) -> None:
    """The message is about the state dict that comes closest, not about the first one."""
    path = tmp_path / "c.pth"
    torch.save({"model": {"w": torch.ones(1)}, "net": Net(classes=5).state_dict()}, path)
    message, hint = caught(ModelConfig(path, factory))
    assert "got 2 of another shape (linear.weight is (5, 4)" in message
    assert "--model-arg classes=5" in hint


@pytest.mark.parametrize(
    ("name", "build", "text"),
    [
        ("resnet56_cifar10.pth", "resnet20", "has fewer layers"),
        ("resnet20_cifar10.pth", "resnet56", "has more layers"),
    ],
)
def test_published_checkpoints_under_another_depth(name: str, build: str, text: str) -> None:
    path = SHARED / "checkpoints" / name
    if not path.exists():
        pytest.skip(f"{path} is not here")
    factory = f"{SHARED / 'models' / 'cifar_resnet.py'}:{build}"
    message, hint = caught(ModelConfig(path, factory))
    assert "(layer1.3.conv1.weight, layer1.3.bn1.weight, layer1.3.bn1.bias, ...)" in message
    assert text in hint


def test_numpy_array(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.ones(3))
    message, _ = caught(ModelConfig(path))
    assert "got a NumPy array" in message


@pytest.mark.parametrize(
    ("change", "got"),
    [
        (lambda weight: weight.to(torch.complex64), "complex64"),
        (lambda weight: weight.to_sparse(), "sparse_coo"),
    ],
)
def test_weights_that_would_lose_something_in_copying(
    change: Callable[[torch.Tensor], torch.Tensor], got: str, tmp_path: Path, factory: str
) -> None:
    state = trained().state_dict()
    name = next(name for name in state if name.endswith("weight"))
    torch.save({**state, name: change(state[name])}, tmp_path / "odd.pt")
    message, hint = caught(ModelConfig(tmp_path / "odd.pt", factory))
    assert message.endswith(f"weights must be plain numbers, got {name} of {got}")
    assert ".to_dense()" in hint


def test_weights_of_a_byte_are_read(tmp_path: Path, factory: str) -> None:
    state = trained().state_dict()
    name = next(name for name in state if name.endswith("weight"))
    small = state[name].to(torch.float8_e4m3fn)
    torch.save({**state, name: small}, tmp_path / "small.pt")
    module = load_model(ModelConfig(tmp_path / "small.pt", factory)).module
    assert module is not None
    assert torch.equal(module.state_dict()[name], small.float())


def test_one_part_of_several(tmp_path: Path, factory: str) -> None:
    file = tmp_path / "model-00001-of-00002.safetensors"
    save_file(trained().state_dict(), file)
    message, hint = caught(ModelConfig(file, factory))
    assert message.endswith("must hold all weights, got part 1 of 2")
    assert "folder with its config.json" in hint
