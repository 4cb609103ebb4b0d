"""Architectures by name: what is built, and what a wrong name or a missing package says."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import nn

from prunecli.config import ModelConfig
from prunecli.errors import CheckpointError, ConfigError, MissingExtraError, ModelError
from prunecli.loading import load_model
from prunecli.loading.factory import build_module

timm_only = pytest.mark.skipif(find_spec("timm") is None, reason="timm is not installed")
torchvision_only = pytest.mark.skipif(
    find_spec("torchvision") is None, reason="torchvision is not installed"
)
both = [
    pytest.param("timm", "resnet10t", marks=timm_only),
    pytest.param("torchvision", "squeezenet1_1", marks=torchvision_only),
]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever wants trained weights from the network fails."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a download")

    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", refuse)


def build(spec: str, **args: str) -> nn.Module:
    return build_module(spec, args, ())[0].eval()


@pytest.mark.parametrize(("library", "name"), both)
def test_name_builds_the_network(library: str, name: str) -> None:
    network = build(f"{library}:{name}", num_classes="7")
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 64, 64)).shape == (1, 7)


@pytest.mark.parametrize(("library", "name"), both)
def test_checkpoint_is_loaded_into_it(library: str, name: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    trained = build(f"{library}:{name}", num_classes="7")
    torch.save(trained.state_dict(), tmp_path / "net.pt")
    torch.manual_seed(2)
    spec = f"{library}:{name}"
    loaded = load_model(ModelConfig(tmp_path / "net.pt", spec, {"num_classes": "7"})).module
    assert loaded is not None
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(loaded(images), trained(images))

    with pytest.raises(CheckpointError) as raised:
        load_model(ModelConfig(tmp_path / "net.pt", spec))
    assert raised.value.hint is not None
    assert raised.value.hint.endswith("try --model-arg num_classes=7")


@pytest.mark.parametrize(
    ("spec", "error", "hint"),
    [
        pytest.param(
            "timm:resnet26dd",
            "--model timm:resnet26dd: must be an architecture of timm, got no 'resnet26dd'",
            "timm:resnet26d ",
            marks=timm_only,
        ),
        pytest.param(
            "torchvision:resnet51",
            "--model torchvision:resnet51: must be an architecture of torchvision, "
            "got no 'resnet51'",
            "torchvision:resnet50",
            marks=torchvision_only,
        ),
        pytest.param(
            "torchvision:qqqqqq",
            "--model torchvision:qqqqqq: must be an architecture of torchvision, got no 'qqqqqq'",
            "names with list_models()",
            marks=torchvision_only,
        ),
    ],
)
def test_unknown_name_is_answered_with_close_ones(spec: str, error: str, hint: str) -> None:
    with pytest.raises(ConfigError) as raised:
        build(spec)
    assert raised.value.message == error
    assert raised.value.hint is not None
    assert hint in f"{raised.value.hint} "


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_missing_package_says_how_to_get_it(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunecli.loading.library.find_spec", lambda _name: None)
    with pytest.raises(MissingExtraError) as raised:
        build(f"{library}:resnet18")
    assert raised.value.message == f"{library} is not installed"
    assert raised.value.hint == f"install it with: pip install 'prunecli[{library}]'"


@timm_only
def test_what_the_package_itself_offers_is_a_factory_as_before() -> None:
    network = build("timm:create_model", model_name="resnet10t", num_classes="3")
    assert isinstance(network, nn.Module)


@torchvision_only
def test_networks_with_a_backbone_download_nothing() -> None:
    network = build("torchvision:lraspp_mobilenet_v3_large", num_classes="2")
    assert isinstance(network, nn.Module)


@torchvision_only
def test_argument_that_the_architecture_rejects_names_the_model() -> None:
    with pytest.raises(ModelError, match=r"^--model torchvision:squeezenet1_1: raised TypeError"):
        build("torchvision:squeezenet1_1", nothing="1")
