"""Small data sets on disk for the tests of the data stage."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from prunecli.config import DataConfig
from prunecli.data import DataSet, open_data
from prunecli.progress import SilentReporter
from prunecli.tasks import Fit


def read(path: Path, sample_shape: tuple[int, ...] | None = None, **config: object) -> DataSet:
    """`open_data` with a silent reporter."""
    return open_data(
        DataConfig(path, **config), sample_shape=sample_shape, reporter=SilentReporter()
    )


def check(data: DataSet, outputs: tuple[int, ...]) -> None:
    """The task's check against the shape of the network's only output."""
    targets = tuple(tuple(item.shape[1:]) for item in data.train.targets)
    data.task.check(Fit((outputs,), data.labels, targets))


def tint(label: int, index: int) -> tuple[int, int, int]:
    """A colour that says which image this is: class in red, number in green."""
    return (label * 10, index, 200)


def image(label: int, index: int, size: tuple[int, int] = (8, 6), mode: str = "RGB") -> Image.Image:
    """One colour all over; `size` is width and height. Grey images carry the index."""
    if mode == "L":
        return Image.new("L", size, index)
    return Image.new("RGB", size, tint(label, index)).convert(mode)


def image_folder(
    root: Path, classes: list[str], each: int, size: tuple[int, int] = (8, 6), mode: str = "RGB"
) -> Path:
    """`root/<class>/<index>.png`."""
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for index in range(each):
            image(label, index, size, mode).save(root / name / f"{index:03}.png")
    return root


def png(label: int, index: int, size: tuple[int, int] = (8, 6)) -> bytes:
    stream = io.BytesIO()
    image(label, index, size).save(stream, "PNG")
    return stream.getvalue()


def image_parquet(
    file: Path,
    labels: list[int],
    names: list[str] | None = None,
    column: str = "image",
    **more: list[object],
) -> Path:
    """Images in the Hugging Face layout: a struct of bytes and path, names in the metadata."""
    table = pa.table(
        {
            column: [
                {"bytes": png(label, index), "path": f"{index}.png"}
                for index, label in enumerate(labels)
            ],
            "label": pa.array(labels, pa.int64()),
            **more,
        }
    )
    if names is not None:
        features = {
            column: {"_type": "Image"},
            "label": {"names": names, "_type": "ClassLabel"},
        }
        info = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": info})
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file, row_group_size=7)
    return file


def colours(data: DataSet, split: str) -> np.ndarray:
    """The top left pixel of each image, `(N, C)`."""
    return getattr(data, split).inputs[0][:, :, 0, 0].numpy()
