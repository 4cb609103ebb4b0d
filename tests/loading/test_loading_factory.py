"""Building the model from the user's code: what is called, and what a mistake says."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from crafted import NET_SOURCE, trained
from torch import nn

from prunecli.config import ModelConfig
from prunecli.errors import ConfigError, ModelError, PrunecliError
from prunecli.loading import load_model
from prunecli.loading.factory import build_module, parse_value

SOURCE = (
    NET_SOURCE
    + """
def build(width, *, flag=False, name="x"):
    net = Net(width)
    net.asked = (width, flag, name)
    return net

def fails():
    values = {}
    return values["nothing"]

def fails_inside():
    return nn.Conv2d(3, 4, 3, groups=2)

def quits():
    raise SystemExit(3)

def silent():
    raise ValueError

def pair():
    return Net(), 3

def anything(**options):
    return Net(**options)

def talks():
    print("building")
    return Net()

class Makers:
    @staticmethod
    def make():
        return Net()

made = Net(7)
text = "no model"
"""
)


@pytest.fixture
def net(tmp_path: Path) -> Path:
    path = tmp_path / "net.py"
    path.write_text(SOURCE)
    return path


def test_arguments_reach_the_factory(net: Path) -> None:
    args = {"width": "7", "flag": "True", "name": "resnet"}
    module, parameters = build_module(f"{net}:build", args, ())
    assert module.asked == (7, True, "resnet")
    assert list(parameters) == ["width", "flag", "name"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("0.5", 0.5),
        ("[1, 2]", [1, 2]),
        ("None", None),
        ("true", True),
        ("False", False),
        ("false", False),
        ("'true'", "true"),
        ("relu", "relu"),
        ("a-b", "a-b"),
        ("__import__('os')", "__import__('os')"),
        ("", ""),
    ],
)
def test_values(text: str, value: object) -> None:
    parsed = parse_value(text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("name", "classes"), [("Net", 3), ("anything", 3), ("Makers.make", 3), ("made", 7)]
)
def test_what_may_be_named(net: Path, name: str, classes: int) -> None:
    module, _ = build_module(f"{net}:{name}", {}, ())
    assert module.get_parameter("linear.bias").shape == (classes,)


def test_arbitrary_keywords(net: Path) -> None:
    module, _ = build_module(f"{net}:anything", {"classes": "9"}, ())
    assert module.get_parameter("linear.bias").shape == (9,)


def test_siblings_are_importable_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    (tmp_path / "sibling_of_factory.py").write_text(NET_SOURCE)
    (tmp_path / "uses.py").write_text(
        "from sibling_of_factory import Net\n"
        "def build():\n    import sibling_of_factory\n    return sibling_of_factory.Net()\n"
    )
    paths = list(sys.path)
    build_module(f"{tmp_path / 'uses.py'}:build", {}, ())
    assert sys.path == paths
    assert not sys.dont_write_bytecode
    assert sorted(p.name for p in tmp_path.iterdir()) == ["sibling_of_factory.py", "uses.py"]


def test_package_module_near_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "somepackage"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "parts.py").write_text(NET_SOURCE)
    (package / "nets.py").write_text("from .parts import Net\n")
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "c.pth"
    torch.save(trained().state_dict(), path)
    loaded = load_model(ModelConfig(path, "somepackage.nets:Net"))
    assert loaded.module is not None
    assert torch.equal(loaded.module.get_parameter("conv.bias"), trained().conv.bias)


def test_a_file_named_like_a_library_hides_nothing(tmp_path: Path) -> None:
    path = tmp_path / "types.py"
    path.write_text(NET_SOURCE)
    before = sys.modules["types"]
    build_module(f"{path}:Net", {}, ())
    assert sys.modules["types"] is before


def test_prints_go_to_stderr(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build_module(f"{net}:talks", {}, ())
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "building\n"


# The text after the folder, arguments, the error, its message and its hint.
WRONG: list[Any] = [
    pytest.param(
        "/net.py",
        {},
        ConfigError,
        "--model: FILE.py:factory or package.module:factory is needed, got '{net}'",
        "add a colon and the function or class that builds the model, "
        "e.g. --model net.py:build or --model torchvision.models:resnet18",
        id="no-colon",
    ),
    pytest.param(
        "/net.py:", {}, ConfigError, "is needed, got '{net}:'", "add a colon", id="nothing-after"
    ),
    pytest.param(
        "/nett.py:Net",
        {},
        ConfigError,
        "the file must exist, got no such file {folder}/nett.py",
        "did you mean {net}?",
        id="file",
    ),
    pytest.param(
        "/no/x.py:Net", {}, ConfigError, "got no such file", "check the path", id="folder"
    ),
    pytest.param(
        "/net.py:biuld",
        {},
        ConfigError,
        "the factory must exist, got no 'biuld' in {net}",
        "did you mean build?",
        id="misspelt",
    ),
    pytest.param(
        "/net.py:xyzzy",
        {},
        ConfigError,
        "got no 'xyzzy' in {net}",
        "it defines Net, build, fails, fails_inside, quits, silent, pair, anything",
        id="unknown",
    ),
    pytest.param(
        "/net.py:text",
        {},
        ConfigError,
        "the factory must be a function or a class, got str",
        "it defines Net",
        id="not-callable",
    ),
    pytest.param(
        "/net.py:build",
        {},
        ConfigError,
        "every argument without a default must be given, got none for width",
        "add --model-arg width=...",
        id="argument-needed",
    ),
    pytest.param(
        "/net.py:build",
        {"width": "3", "wdith": "4"},
        ConfigError,
        "--model-arg wdith: {net}:build must take it, got no such argument",
        "it takes width, flag, name",
        id="argument-unknown",
    ),
    pytest.param(
        "/net.py:fails",
        {"x": "1"},
        ConfigError,
        "--model-arg x: {net}:fails must take it, got no such argument",
        "it takes no arguments",
        id="no-arguments",
    ),
    pytest.param(
        "/net.py:fails",
        {},
        ModelError,
        "--model {net}:fails: raised KeyError: 'nothing' ({net}:{line})",
        "run this code on its own to find the cause; --model-arg key=value passes arguments",
        id="raises",
    ),
    pytest.param(
        "/net.py:fails_inside",
        {},
        ModelError,
        "raised ValueError: in_channels must be divisible by groups ({net}:{line})",
        "run this code on its own",
        id="raises-in-a-library",
    ),
    pytest.param(
        "/net.py:quits", {}, ModelError, "raised SystemExit: 3 ({net}:", "run this", id="exits"
    ),
    pytest.param(
        "/net.py:silent", {}, ModelError, "raised ValueError ({net}:", "run this", id="no-text"
    ),
    pytest.param(
        "/net.py:pair",
        {},
        ModelError,
        "must return an nn.Module, got tuple",
        "returns only the model",
        id="returns-a-pair",
    ),
    pytest.param(
        "/net.py:Net",
        {"classes": "many"},
        ModelError,
        "raised TypeError: ",
        "run this code on its own",
        id="wrong-type",
    ),
]


@pytest.mark.parametrize(("spec", "args", "kind", "text", "hint"), WRONG)
def test_mistakes(
    net: Path, spec: str, args: dict[str, str], kind: type[PrunecliError], text: str, hint: str
) -> None:
    with pytest.raises(kind) as caught:
        build_module(f"{net.parent}{spec}", args, ())
    error = caught.value
    assert error.exit_code == 2
    assert error.hint is not None
    assert "\n" not in error.message + error.hint
    marks = {"fails": 'return values["nothing"]', "fails_inside": "groups=2"}
    mark = marks.get(spec.rpartition(":")[2], "def build")
    line = next(i for i, text in enumerate(SOURCE.splitlines(), 1) if mark in text)
    names = {"net": net, "folder": net.parent, "line": line}
    assert text.format(**names) in error.message
    assert hint.format(**names) in error.hint


def mistake(spec: str) -> PrunecliError:
    with pytest.raises(PrunecliError) as caught:
        build_module(spec, {}, ())
    return caught.value


@pytest.mark.parametrize("module", ["no_such_package", "torch.no_such_part"])
def test_module_missing(module: str) -> None:
    error = mistake(f"{module}:build")
    assert isinstance(error, ConfigError)
    assert f"the module must be importable, got no module named '{module}'" in error.message
    assert error.hint == "install it, or give the file instead: --model path/to/net.py:factory"


def test_import_missing_inside_the_file(tmp_path: Path) -> None:
    path = tmp_path / "net.py"
    path.write_text("import torch\nimport no_such_package.part\n")
    error = mistake(f"{path}:build")
    assert isinstance(error, ModelError)
    assert error.message == (
        f"--model {path}:build: raised ModuleNotFoundError: No module named 'no_such_package' "
        f"({path}:2)"
    )
    assert error.hint == "install no_such_package, or run from the folder that holds it"


def test_syntax_error(tmp_path: Path) -> None:
    path = tmp_path / "net.py"
    path.write_text("x = 1\ndef build(:\n")
    error = mistake(f"{path}:build")
    assert "raised SyntaxError: invalid syntax" in error.message
    assert error.message.endswith(f"({path}:2)")


def test_file_of_a_package(tmp_path: Path) -> None:
    path = tmp_path / "net.py"
    path.write_text("from .layers import Net\n")
    error = mistake(f"{path}:Net")
    assert "relative import" in error.message
    assert error.hint == (
        "the file belongs to a package: give --model package.module:factory instead"
    )


def test_model_left_on_the_meta_device(tmp_path: Path) -> None:
    path, source = tmp_path / "c.pth", tmp_path / "net.py"
    source.write_text(
        NET_SOURCE
        + "\ndef build():\n    net = Net()\n"
        + "    net.register_buffer('grid', torch.ones(2, device='meta'), persistent=False)\n"
        + "    return net\n"
    )
    torch.save(trained().state_dict(), path)
    with pytest.raises(ModelError, match="got grid on the meta device"):
        load_model(ModelConfig(path, f"{source}:build"))


def test_wrapped_model_is_unwrapped(tmp_path: Path) -> None:
    path, source = tmp_path / "c.pth", tmp_path / "net.py"
    source.write_text(NET_SOURCE + "\ndef build():\n    return nn.DataParallel(Net())\n")
    torch.save(trained().state_dict(), path)
    loaded = load_model(ModelConfig(path, f"{source}:build"))
    assert loaded.notes == ("DataParallel unwrapped",)
    assert not isinstance(loaded.module, nn.DataParallel)
