"""Every checkpoint format that must load: the weights arrive, and the notes say how."""

import argparse
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from crafted import NET_SOURCE, Net, rewrite, save_program, trained
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

from prunecli.config import ModelConfig
from prunecli.files import sha256_of
from prunecli.loading import LoadedModel, load_model

SHARED = Path(__file__).parents[2].parent / "shared"


@pytest.fixture
def factory(tmp_path: Path) -> str:
    (tmp_path / "net.py").write_text(NET_SOURCE)
    return f"{tmp_path / 'net.py'}:Net"


def assert_holds(loaded: LoadedModel, expected: nn.Module) -> None:
    """Same values, float32, evaluation mode, same output."""
    assert loaded.program is None
    assert loaded.module is not None
    assert not any(module.training for module in loaded.module.modules())
    held, wanted = loaded.module.state_dict(), expected.state_dict()
    assert list(held) == list(wanted)
    for key, value in wanted.items():
        assert held[key].device.type == "cpu"
        if value.is_floating_point():
            assert held[key].dtype == torch.float32
            assert torch.equal(held[key], value.float()), key
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(loaded.module(x), expected.float()(x))


def prefixed(prefix: str, state: dict[str, Any]) -> dict[str, Any]:
    return {prefix + key: value for key, value in state.items()}


def other(seed: int = 5) -> dict[str, torch.Tensor]:
    return trained(seed).state_dict()


OPTIMIZER = torch.optim.SGD(trained().parameters(), lr=0.1, momentum=0.9).state_dict()

# A saved object made from the state dict, and the notes that loading must leave.
NESTED: list[Any] = [
    pytest.param(lambda s: s, (), id="bare"),
    pytest.param(
        lambda s: {"state_dict": s, "epoch": 3},
        ('weights read from "state_dict"',),
        id="state_dict",
    ),
    pytest.param(
        lambda s: {"model_state_dict": s, "optimizer": OPTIMIZER},
        ('weights read from "model_state_dict"',),
        id="model_state_dict",
    ),
    pytest.param(lambda s: {"net": s, "acc": 0.5}, ('weights read from "net"',), id="net"),
    pytest.param(lambda s: {"weird": s}, ('weights read from "weird"',), id="unusual-place"),
    pytest.param(
        lambda s: {"run": {"model": s}}, ('weights read from "run.model"',), id="two-levels"
    ),
    pytest.param(
        lambda s: {"ema": other(), "model": s},
        ('weights read from "model"', '"ema" holds weights too, not used'),
        id="plain-before-ema",
    ),
    pytest.param(
        lambda s: {"model": {"w": torch.ones(2)}, "model_ema": s},
        ('weights read from "model_ema"', '"model" holds weights too, not used'),
        id="only-ema-matches",
    ),
    pytest.param(lambda s: {"ema": s}, ('weights read from "ema"',), id="ema-alone"),
    pytest.param(lambda s: prefixed("module.", s), ('prefix "module." removed',), id="parallel"),
    pytest.param(
        lambda s: prefixed("_orig_mod.", s), ('prefix "_orig_mod." removed',), id="compiled"
    ),
    pytest.param(lambda s: prefixed("model.", s), ('prefix "model." removed',), id="lightning"),
    pytest.param(
        lambda s: {"state_dict": prefixed("module._orig_mod.", s)},
        ('weights read from "state_dict"', 'prefix "module._orig_mod." removed'),
        id="nested-and-stacked",
    ),
    pytest.param(
        lambda s: {**prefixed("module.", s), "n_averaged": torch.tensor(4)},
        ('prefix "module." removed',),
        id="averaged-model",
    ),
    pytest.param(
        lambda s: {k: v for k, v in s.items() if "num_batches" not in k}, (), id="no-counters"
    ),
    pytest.param(
        lambda s: {
            "state_dict": s,
            "args": argparse.Namespace(lr=0.1),
            "best": np.float64(0.9),
            "old": np.float32(1),
        },
        ('weights read from "state_dict"',),
        id="harmless-extras",
    ),
    pytest.param(
        lambda s: {k: nn.Parameter(v) if v.is_floating_point() else v for k, v in s.items()},
        (),
        id="parameters",
    ),
]


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize(("wrap", "notes"), NESTED)
def test_state_dicts(
    tmp_path: Path,
    factory: str,
    wrap: Callable[[Any], Any],
    notes: tuple[str, ...],
    legacy: bool,
) -> None:
    model, path = trained(), tmp_path / "c.pth"
    torch.save(wrap(model.state_dict()), path, _use_new_zipfile_serialization=not legacy)
    loaded = load_model(ModelConfig(path, factory))
    assert_holds(loaded, model)
    assert loaded.notes == notes
    assert loaded.sha256 == sha256_of(path)


VERSIONED_SOURCE = (
    NET_SOURCE
    + """
class Scaled(Net):
    # Version 1 kept the bias at half of its size.
    _version = 2
    def _load_from_state_dict(self, state, prefix, metadata, *rest):
        if metadata.get("version") != 2:
            state[prefix + "linear.bias"] = state[prefix + "linear.bias"] * 2
        super()._load_from_state_dict(state, prefix, metadata, *rest)
"""
)


@pytest.mark.parametrize("version", [1, 2])
def test_versions_survive_a_removed_prefix(tmp_path: Path, version: int) -> None:
    (tmp_path / "net.py").write_text(VERSIONED_SOURCE)
    state, path = nn.DataParallel(trained()).state_dict(), tmp_path / "c.pth"
    state._metadata["module"]["version"] = version
    torch.save(state, path)
    loaded = load_model(ModelConfig(path, f"{tmp_path / 'net.py'}:Scaled"))
    assert loaded.module is not None
    held = loaded.module.state_dict()["linear.bias"]
    assert torch.equal(held, state["module.linear.bias"] * (2 if version == 1 else 1))


def test_legacy_file_saved_on_cuda(tmp_path: Path, factory: str) -> None:
    model, path = trained(), tmp_path / "c.th"
    torch.save(model.state_dict(), path, _use_new_zipfile_serialization=False)
    path.write_bytes(as_if_on_cuda(path.read_bytes()))
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="CUDA"):
            torch.load(path, weights_only=True)
    assert_holds(load_model(ModelConfig(path, factory)), model)


def test_zip_file_saved_on_cuda(tmp_path: Path, factory: str) -> None:
    model, path, source = trained(), tmp_path / "c.pth", tmp_path / "cpu.pth"
    torch.save(model.state_dict(), source)
    rewrite(source, path, lambda m: m.update({"data.pkl": as_if_on_cuda(m["data.pkl"])}))
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="CUDA"):
            torch.load(path, weights_only=True)
    assert_holds(load_model(ModelConfig(path, factory)), model)


def as_if_on_cuda(data: bytes) -> bytes:
    """Every storage's location tag, as pickle writes short strings."""
    assert b"X\x03\x00\x00\x00cpu" in data
    return data.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")


def test_safetensors_whatever_the_suffix(tmp_path: Path, factory: str) -> None:
    model, path = trained(), tmp_path / "c.bin"
    save_file(prefixed("module.", model.state_dict()), path)
    loaded = load_model(ModelConfig(path, factory))
    assert_holds(loaded, model)
    assert loaded.notes == ('prefix "module." removed',)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_becomes_float32(tmp_path: Path, factory: str, dtype: torch.dtype) -> None:
    model, path = trained().to(dtype), tmp_path / "c.pth"
    torch.save(model.state_dict(), path)
    loaded = load_model(ModelConfig(path, factory))
    assert_holds(loaded, model)
    name = str(dtype).removeprefix("torch.")
    assert loaded.notes == (f"{name} weights converted to float32",)


def test_factory_that_builds_half_precision(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET_SOURCE + "\ndef half():\n    return Net().half()\n")
    model, path = trained().half(), tmp_path / "c.pth"
    torch.save(model.state_dict(), path)
    loaded = load_model(ModelConfig(path, f"{tmp_path / 'net.py'}:half"))
    assert_holds(loaded, model)
    assert "float16 model converted to float32" in loaded.notes


def test_factory_that_builds_without_memory(tmp_path: Path) -> None:
    build = "\ndef meta():\n    with torch.device('meta'):\n        return Net()\n"
    (tmp_path / "net.py").write_text(NET_SOURCE + build)
    model, path = trained(), tmp_path / "c.pth"
    torch.save(model.state_dict(), path)
    assert_holds(load_model(ModelConfig(path, f"{tmp_path / 'net.py'}:meta")), model)


def test_tied_weights_saved_once(tmp_path: Path) -> None:
    tie = "; self.head = nn.Linear(4, 3); self.head.weight = self.linear.weight"
    source = NET_SOURCE.replace("nn.Linear(4, classes)", "nn.Linear(4, classes)" + tie)
    (tmp_path / "net.py").write_text(source)
    state, path = dict(trained().state_dict()), tmp_path / "c.safetensors"
    save_file({**state, "head.bias": torch.ones(3)}, path)
    loaded = load_model(ModelConfig(path, f"{tmp_path / 'net.py'}:Net"))
    assert loaded.module is not None
    held = loaded.module.state_dict()
    assert torch.equal(held["head.weight"], state["linear.weight"])
    assert torch.equal(held["linear.weight"], state["linear.weight"])


def test_lazy_layers(tmp_path: Path) -> None:
    source = NET_SOURCE.replace("nn.Linear(4, classes)", "nn.LazyLinear(classes)")
    (tmp_path / "net.py").write_text(source)
    model, path = trained(), tmp_path / "c.pth"
    torch.save(model.state_dict(), path)
    loaded = load_model(ModelConfig(path, f"{tmp_path / 'net.py'}:Net"))
    assert_holds(loaded, model)


def test_model_whose_own_keys_begin_like_a_prefix(tmp_path: Path) -> None:
    wrapper = (
        "\nclass Outer(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.model = Net()\n    def forward(self, x):\n        return self.model(x)\n"
    )
    (tmp_path / "net.py").write_text(NET_SOURCE + wrapper)
    model, path = trained(), tmp_path / "c.pth"
    torch.save(prefixed("model.", model.state_dict()), path)
    loaded = load_model(ModelConfig(path, f"{tmp_path / 'net.py'}:Outer"))
    assert loaded.notes == ()
    assert loaded.module is not None
    assert torch.equal(loaded.module.state_dict()["model.conv.weight"], model.conv.weight)


def test_infinite_mask_buffers_are_no_fault(tmp_path: Path) -> None:
    source = NET_SOURCE.replace(
        "self.conv =", "self.register_buffer('mask', torch.zeros(2)); self.conv ="
    )
    (tmp_path / "net.py").write_text(source)
    state, path = dict(trained().state_dict()), tmp_path / "c.pth"
    state["mask"] = torch.tensor([0.0, -torch.inf])
    torch.save(state, path)
    loaded = load_model(ModelConfig(path, f"{tmp_path / 'net.py'}:Net"))
    assert loaded.module is not None
    assert torch.equal(loaded.module.get_buffer("mask"), state["mask"])


MODULES: list[Any] = [
    pytest.param(lambda m: m, (), id="bare"),
    pytest.param(lambda m: {"model": m, "epoch": 1}, ('module read from "model"',), id="nested"),
    pytest.param(
        lambda m: {"ema": trained(5), "model": m},
        ('module read from "model"', '"ema" holds a module too, not used'),
        id="plain-before-ema",
    ),
    pytest.param(nn.DataParallel, ("DataParallel unwrapped",), id="parallel"),
    pytest.param(AveragedModel, ("AveragedModel unwrapped",), id="averaged"),
]


@pytest.mark.parametrize(("wrap", "notes"), MODULES)
def test_pickled_modules(
    tmp_path: Path, wrap: Callable[[Any], Any], notes: tuple[str, ...]
) -> None:
    model, path = trained().train(), tmp_path / "c.pt"
    torch.save(wrap(model), path)
    loaded = load_model(ModelConfig(path, allow_pickle=True))
    assert_holds(loaded, trained())
    assert loaded.notes == ("unpickled with --allow-pickle", *notes)


def test_pickled_module_gives_its_weights_to_a_factory(tmp_path: Path, factory: str) -> None:
    path = tmp_path / "c.pt"
    torch.save({"model": trained()}, path)
    loaded = load_model(ModelConfig(path, factory, allow_pickle=True))
    assert_holds(loaded, trained())
    assert not isinstance(loaded.module, Net)
    assert loaded.notes == ("unpickled with --allow-pickle", 'weights read from "model"')


def test_allowing_pickles_unpickles_only_where_needed(tmp_path: Path, factory: str) -> None:
    path = tmp_path / "c.pt"
    torch.save(OrderedDict(trained().state_dict()), path)
    assert load_model(ModelConfig(path, factory, allow_pickle=True)).notes == ()


def test_program(tmp_path: Path) -> None:
    model, path = trained(), tmp_path / "renamed.pth"
    save_program(tmp_path / "m.pt2", model, torch.randn(2, 3, 8, 8))
    (tmp_path / "m.pt2").rename(path)
    loaded = load_model(ModelConfig(path))
    assert loaded.module is None
    assert loaded.program is not None
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(loaded.program.module()(x), model(x))
    assert loaded.sha256 == sha256_of(path)


PUBLISHED: list[Any] = [
    ("resnet20_cifar10.pth", "resnet20"),
    ("resnet20_published_cuda.th", "resnet20"),
    ("resnet56_cifar10.pth", "resnet56"),
]


@pytest.mark.parametrize(("name", "build"), PUBLISHED)
def test_published_checkpoints(name: str, build: str) -> None:
    path = SHARED / "checkpoints" / name
    if not path.exists():
        pytest.skip(f"{path} is not here")
    loaded = load_model(ModelConfig(path, f"{SHARED / 'models' / 'cifar_resnet.py'}:{build}"))
    assert loaded.notes == ('weights read from "state_dict"', 'prefix "module." removed')
    assert loaded.module is not None
    saved = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    held = loaded.module.state_dict()
    weights = {key for key in held if not key.endswith("num_batches_tracked")}
    assert weights <= {key.removeprefix("module.") for key in saved}
    for key, value in saved.items():
        assert torch.equal(held[key.removeprefix("module.")], value)
