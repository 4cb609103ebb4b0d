"""The samples are complete, small, and what their README says."""

import importlib.util
import io
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from prunecli.config import DataConfig, ModelConfig
from prunecli.data import DataSet, open_data
from prunecli.loading import load_model
from prunecli.progress import SilentReporter

SAMPLES = Path(__file__).resolve().parent.parent / "samples"
CHECKPOINT = SAMPLES / "mnist_cnn.safetensors"
RIGHT = 980
"""Of 1,000 validation digits; one more or less is rounding on another processor."""


def sample_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sample_mnist_cnn", SAMPLES / "mnist_cnn.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def decoded(name: str) -> tuple[Tensor, Tensor]:
    """`(N, 28, 28)` uint8 and labels, without the package's own readers."""
    rows = pq.read_table(SAMPLES / "mnist" / f"{name}.parquet").to_pylist()
    pixels = [np.asarray(Image.open(io.BytesIO(row["image"]["bytes"]))) for row in rows]
    return torch.from_numpy(np.stack(pixels)), torch.tensor([row["label"] for row in rows])


def right(network: nn.Module, inputs: Tensor, labels: Tensor) -> int:
    with torch.no_grad():
        return int((network.eval()(inputs).argmax(1) == labels).sum())


@pytest.fixture(scope="module")
def data() -> DataSet:
    config = DataConfig(SAMPLES / "mnist", mean=(0.1307,), std=(0.3081,))
    return open_data(config, sample_shape=(1, 28, 28), reporter=SilentReporter())


def test_samples_are_small() -> None:
    sizes = {path.name: path.stat().st_size for path in SAMPLES.rglob("*") if path.is_file()}
    assert sizes["mnist_cnn.safetensors"] < 2.5e6
    assert sizes["train.parquet"] + sizes["validation.parquet"] < 1e6


def test_splits_are_stratified_and_share_no_image() -> None:
    train, validation = decoded("train"), decoded("validation")
    assert train[0].shape == (4000, 28, 28)
    assert torch.bincount(train[1]).tolist() == [400] * 10
    assert validation[0].shape == (1000, 28, 28)
    assert torch.bincount(validation[1]).tolist() == [100] * 10
    seen = {image.numpy().tobytes() for image in torch.cat([train[0], validation[0]])}
    assert len(seen) == 5000


def test_labels_belong_to_their_images() -> None:
    """Each digit's mean image classifies most digits: labels are not shuffled."""
    (pixels, labels), (others, wanted) = decoded("train"), decoded("validation")
    means = torch.stack([pixels[labels == digit].float().mean(0) for digit in range(10)])
    distances = torch.cdist(others.float().flatten(1), means.flatten(1))
    assert (distances.argmin(1) == wanted).float().mean() > 0.75


def test_checkpoint_fits_the_network_and_is_as_accurate_as_stated() -> None:
    network = sample_module().MnistCNN()
    stored = load_file(CHECKPOINT)
    assert {value.dtype for value in stored.values()} == {torch.float16}
    network.load_state_dict({name: value.float() for name, value in stored.items()})
    assert sum(value.numel() for value in network.parameters()) == 1_199_882
    pixels, labels = decoded("validation")
    inputs = (pixels[:, None].float() / 255 - 0.1307) / 0.3081
    assert abs(right(network, inputs, labels) - RIGHT) <= 1


def test_the_package_reads_samples_as_they_are(data: DataSet) -> None:
    loaded = load_model(ModelConfig(CHECKPOINT, factory=f"{SAMPLES / 'mnist_cnn.py'}:MnistCNN"))
    assert isinstance(loaded.module, nn.Module)
    assert {value.dtype for value in loaded.module.parameters()} == {torch.float32}
    assert data.labels[0].classes == tuple("0123456789")
    assert len(data.train) + len(data.choose) == 4000
    assert len(data.validation) == 1000
    found = right(
        loaded.module, data.prepare(data.validation.inputs)[0], data.validation.targets[0]
    )
    assert abs(found - RIGHT) <= 1


def test_readme_states_what_is_there() -> None:
    text = (SAMPLES / "README.md").read_text(encoding="utf-8")
    assert f"{RIGHT / 10:.1f}% of the validation digits ({RIGHT} of 1,000)" in text
    for path in (SAMPLES / "mnist").iterdir():
        size = path.stat().st_size / 1e6
        assert re.search(rf"`mnist/{path.name}` \| {size:.2f} MB", text), path.name
    assert f"`mnist_cnn.safetensors` | {CHECKPOINT.stat().st_size / 1e6:.2f} MB" in text
