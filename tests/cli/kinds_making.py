"""Networks of six kinds that have learnt generated data, with files as their users have them.

Each maker writes the data and a checkpoint into a folder, and says how `prunecli` is called and how
anybody would score the ONNX file, without a line of prunecli.
"""

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from prunecli.compat import declare_missing_operators
from prunecli.loading.factory import build_module

NETS = '''
import torch
from torch import nn


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1)
        )

    def forward(self, x):
        return self.body(x)


def block(inputs, outputs):
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class UNet(nn.Module):
    """One level down and up again, with a connection across."""

    def __init__(self):
        super().__init__()
        self.down = block(3, 16)
        self.bottom = block(16, 32)
        self.back = nn.ConvTranspose2d(32, 16, 2, stride=2)
        self.up = block(32, 16)
        self.out = nn.Conv2d(16, 3, 1)

    def forward(self, x):
        across = self.down(x)
        deep = self.bottom(nn.functional.max_pool2d(across, 2))
        return self.out(self.up(torch.cat((across, self.back(deep)), 1)))


class Heads(nn.Module):
    """Which shape, and where it lies."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            block(3, 16), nn.MaxPool2d(2), block(16, 32), nn.MaxPool2d(2), nn.Flatten()
        )
        self.deep = nn.Linear(512, 32)
        self.shape = nn.Linear(32, 2)
        self.place = nn.Linear(32, 1)

    def forward(self, x):
        found = self.deep(self.body(x)).relu()
        return {"shape": self.shape(found), "place": self.place(found)}


class Sounds(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Conv1d(1, 16, 9, stride=4)
        self.two = nn.Conv1d(16, 32, 9, stride=4)
        self.three = nn.Linear(32, 3)

    def forward(self, x):
        return self.three(self.two(self.one(x).relu()).relu().mean(2))


class Lstm(nn.Module):
    def __init__(self):
        super().__init__()
        self.reads = nn.LSTM(3, 32, batch_first=True)
        self.says = nn.Linear(32, 3)

    def forward(self, x):
        return self.says(self.reads(x)[0][:, -1])
'''

SIZE = 16
RATE, SAMPLES = 4000, 400


@dataclass(frozen=True)
class Kind:
    """A network that can be pruned.

    Attributes:
        call: arguments for `prunecli prune`.
        score: leading metric of an ONNX file on the validation data, computed anew.
        chance: what a constant answer scores.
    """

    call: tuple[str, ...]
    score: Callable[[Path], float]
    chance: float


def answers(file: Path, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    """All outputs of an ONNX file."""
    return list(onnxruntime.InferenceSession(file).run(None, feed))


def train(
    net: nn.Module, inputs: tuple[Tensor, ...], loss: Callable[..., Tensor], steps: int, lr: float
) -> None:
    """A few steps of Adam on batches of 64.

    Args:
        loss: of the rows of a batch.
    """
    torch.manual_seed(0)
    net.train()
    optimizer = torch.optim.Adam(net.parameters(), lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, steps)
    for _ in range(steps):
        rows = torch.randint(0, len(inputs[0]), (64,))
        optimizer.zero_grad()
        loss(net(*(item[rows] for item in inputs)), rows).backward()
        optimizer.step()
        schedule.step()
    net.eval()


def classes(wanted: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss of a classifier."""
    return lambda said, rows: nn.functional.cross_entropy(said, wanted[rows])


def classified(inputs: np.ndarray, right: np.ndarray) -> tuple[Callable[[Path], float], float]:
    """How an ONNX file's accuracy is found, and what the most frequent class scores."""

    def score(file: Path) -> float:
        (said,) = answers(file, {"x": inputs})
        return float((said.argmax(1) == right).mean())

    return score, float(np.bincount(right).max() / len(right))


def built(folder: Path, name: str) -> nn.Module:
    """A network of `NETS`, whose source lies in the folder."""
    (folder / "nets.py").write_text(NETS)
    torch.manual_seed(0)
    return build_module(f"{folder / 'nets.py'}:{name}", {}, ())[0]


def call(folder: Path, net: nn.Module, data: str, *more: str) -> tuple[str, ...]:
    """Write the weights; what to prune them with."""
    save_file(net.state_dict(), folder / "net.safetensors")
    factory = f"{folder / 'nets.py'}:{type(net).__name__}"
    return (
        str(folder / "net.safetensors"),
        "--model",
        factory,
        "--data",
        str(folder / data),
        *more,
    )


# A table of numbers


def regression(folder: Path) -> Kind:
    """A smooth function of six numbers, as CSV."""

    def table(count: int, seed: int, name: str) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        x = rng.uniform(-1, 1, (count, 6)).round(4)
        y = np.sin(3 * x[:, 0]) + x[:, 1] * x[:, 2] - x[:, 3] ** 2 + 0.05 * rng.normal(size=count)
        with (folder / name).open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["a", "b", "c", "d", "e", "f", "price"])
            writer.writerows([*row, round(value, 5)] for row, value in zip(x, y, strict=True))
        return x.astype(np.float32), y.round(5).astype(np.float32)

    x, y = table(1500, 0, "train.csv")
    judged, right = table(300, 1, "validation.csv")
    net, wanted = built(folder, "Mlp"), torch.from_numpy(y)
    train(
        net,
        (torch.from_numpy(x),),
        lambda said, rows: nn.functional.mse_loss(said[:, 0], wanted[rows]),
        600,
        0.01,
    )

    def score(file: Path) -> float:
        (said,) = answers(file, {"x": judged})
        return float(((said[:, 0].astype(np.float64) - right) ** 2).mean())

    return Kind(call(folder, net, "."), score, float(right.var()))


# Shapes in pictures


def shapes(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Squares and circles on a noisy ground: pictures `(N, H, W, 3)`, masks, which shape, and how
    far to the right."""
    rng = np.random.default_rng(seed)
    pictures = rng.integers(0, 140, (count, SIZE, SIZE, 3))
    kinds = rng.integers(0, 2, count)
    centres = rng.integers(5, SIZE - 5, (count, 2))
    down, right = np.mgrid[:SIZE, :SIZE]
    masks = np.zeros((count, SIZE, SIZE), np.uint8)
    for place in range(count):
        away = np.abs(down - centres[place, 0]), np.abs(right - centres[place, 1])
        inside = np.maximum(*away) <= 3 if kinds[place] else away[0] + away[1] <= 4
        masks[place][inside] = 1 + kinds[place]
        pictures[place][inside] += 70
    return pictures.astype(np.uint8), masks, kinds, centres[:, 1] / SIZE


def scaled(pictures: np.ndarray) -> np.ndarray:
    """As networks take them."""
    return (pictures.transpose(0, 3, 1, 2) / 255).astype(np.float32)


def segmentation(folder: Path) -> Kind:
    """A UNet, with images and masks in folders."""

    def written(count: int, seed: int, name: str) -> tuple[np.ndarray, np.ndarray]:
        pictures, masks, _, _ = shapes(count, seed)
        for kind, items in (("images", pictures), ("masks", masks)):
            (folder / "data" / name / kind).mkdir(parents=True)
            for place, item in enumerate(items):
                Image.fromarray(item).save(folder / "data" / name / kind / f"{place:03}.png")
        return scaled(pictures), masks

    x, y = written(300, 0, "train")
    judged, right = written(80, 1, "val")
    net, wanted = built(folder, "UNet"), torch.from_numpy(y).long()
    train(net, (torch.from_numpy(x),), classes(wanted), 120, 0.02)

    def score(file: Path) -> float:
        (said,) = answers(file, {"x": judged})
        found = said.argmax(1)
        both = [((found == c) & (right == c)).sum() for c in range(3)]
        any_ = [((found == c) | (right == c)).sum() for c in range(3)]
        return float(np.mean(np.array(both) / np.array(any_)))

    # Saying "ground" everywhere gets that class nearly right, and no other.
    return Kind(call(folder, net, "data"), score, float((right == 0).mean()) / 3)


def heads(folder: Path) -> Kind:
    """Two outputs, with images and two columns of targets in parquet."""

    def written(count: int, seed: int, name: str) -> tuple[np.ndarray, ...]:
        pictures, _, kinds, places = shapes(count, seed)
        table = {
            "image": [{"bytes": _png(item), "path": None} for item in pictures],
            "shape": [("circle", "square")[kind] for kind in kinds],
            "place": places,
        }
        pq.write_table(pa.table(table), folder / name)
        return scaled(pictures), kinds, places.astype(np.float32)

    x, kinds, places = written(600, 0, "train.parquet")
    judged, right, _ = written(150, 1, "validation.parquet")
    net = built(folder, "Heads")
    labels, numbers = torch.from_numpy(kinds), torch.from_numpy(places)

    def loss(said: dict[str, Tensor], rows: Tensor) -> Tensor:
        return nn.functional.cross_entropy(said["shape"], labels[rows]) + nn.functional.mse_loss(
            said["place"][:, 0], numbers[rows]
        )

    train(net, (torch.from_numpy(x),), loss, 150, 0.01)

    def score(file: Path) -> float:
        said, _ = answers(file, {"x": judged})
        return float((said.argmax(1) == right).mean())

    task = ("--task", "shape=classification:1.0,place=regression:1.0")
    return Kind(call(folder, net, ".", *task), score, max(right.mean(), 1 - right.mean()))


def _png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


# Sequences


def recurrent(folder: Path) -> Kind:
    """An LSTM that tells in which of three channels a burst came first, as arrays."""

    def sequences(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        x = 0.4 * rng.normal(size=(count, 14, 3))
        times = np.argsort(rng.random((count, 11)), axis=1)[:, :3]
        for channel in range(3):
            x[np.arange(count), times[:, channel], channel] += 2.5
        return x.astype(np.float32), times.argmin(1)

    x, y = sequences(1500, 0)
    judged, right = sequences(300, 1)
    np.savez(folder / "data.npz", x_train=x, y_train=y, x_val=judged, y_val=right)
    net, wanted = built(folder, "Lstm"), torch.from_numpy(y)
    train(net, (torch.from_numpy(x),), classes(wanted), 400, 0.02)

    return Kind(call(folder, net, "data.npz"), *classified(judged, right))


# Sounds


def sounds(folder: Path) -> Kind:
    """A net over samples that tells three tones apart, with a folder of .wav for each."""

    def written(count: int, seed: int, name: str) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, 3, count)
        pitch = np.array([200, 350, 600])[labels] * rng.uniform(0.9, 1.1, count)
        times = np.arange(SAMPLES) / RATE
        waves = np.sin(2 * np.pi * pitch[:, None] * times + rng.uniform(0, 6, (count, 1)))
        waves = (0.3 * waves + 0.15 * rng.normal(size=waves.shape)).clip(-1, 1) * 32767
        stored = waves.astype(np.int16)
        for place, (wave, label) in enumerate(zip(stored, labels, strict=True)):
            own = folder / "data" / name / ("low", "middle", "top")[label]
            own.mkdir(parents=True, exist_ok=True)
            soundfile.write(own / f"{place:03}.wav", wave, RATE)
        return (stored[:, None] / 32768).astype(np.float32), labels

    x, y = written(500, 0, "train")
    judged, right = written(120, 1, "val")
    net, wanted = built(folder, "Sounds"), torch.from_numpy(y)
    train(net, (torch.from_numpy(x),), classes(wanted), 150, 0.01)

    shape = ("--input-shape", f"1,1,{SAMPLES}")
    return Kind(call(folder, net, "data", *shape), *classified(judged, right))


# Texts

GOOD, BAD = ("good", "great", "lovely", "bright"), ("bad", "poor", "awful", "dull")
OTHERS = ("the", "film", "play", "was", "and", "it", "story", "actors", "a", ".")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def reviews(count: int, seed: int) -> list[tuple[str, str]]:
    """Texts that judge one thing and mention another; "not" turns the judgement round."""
    rng = np.random.default_rng(seed)
    found = []
    for likes, turned, first in rng.integers(0, 2, (count, 3)).tolist():
        one, other = rng.permutation(("film", "play", "story", "actors"))[:2]
        judged = ["the", one, "was", *["not"] * turned, rng.choice(GOOD if likes else BAD)]
        said = ["it", "was", "a", other]
        parts = (judged, said) if first else (said, judged)
        text = " ".join([*parts[0], "and", *parts[1]]) + "."
        found.append((text, "positive" if likes != turned else "negative"))
    return found


def classifier(folder: Path) -> Kind:
    """A small BERT with its tokenizer, as transformers saves them, with texts as CSV."""
    declare_missing_operators()
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    words = (*SPECIAL, *GOOD, *BAD, *OTHERS, "not")
    pieces = Tokenizer(
        models.WordPiece({word: place for place, word in enumerate(words)}, unk_token="[UNK]")
    )
    pieces.normalizer = normalizers.BertNormalizer()
    pieces.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    pieces.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    named = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=pieces, sep_token="[SEP]", **named)
    for name, count, seed in (("train", 800, 0), ("validation", 200, 1)):
        lines = [f'"{text}",{label}' for text, label in reviews(count, seed)]
        (folder / f"{name}.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    torch.manual_seed(0)
    net = BertForSequenceClassification(
        BertConfig(
            vocab_size=len(words),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=64,
            max_position_embeddings=32,
            # In an order that is not the alphabet's.
            id2label={0: "positive", 1: "negative"},
            label2id={"positive": 0, "negative": 1},
        )
    )

    def prepared(count: int, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        texts, labels = zip(*reviews(count, seed), strict=True)
        made = tokenizer(list(texts), padding=True, return_tensors="np")
        feed = {name: made[name] for name in ("input_ids", "attention_mask")}
        return feed, np.array([int(label == "negative") for label in labels])

    feed, y = prepared(800, 0)
    judged, right = prepared(200, 1)
    wanted = torch.from_numpy(y)
    train(
        net,
        tuple(torch.from_numpy(item) for item in feed.values()),
        lambda said, rows: nn.functional.cross_entropy(said.logits, wanted[rows]),
        200,
        0.004,
    )
    net.save_pretrained(folder / "bert")
    tokenizer.save_pretrained(folder / "bert")

    def score(file: Path) -> float:
        (said,) = answers(file, judged)
        return float((said.argmax(1) == right).mean())

    words_ = (str(folder / "bert"), "--data", str(folder))
    return Kind(words_, score, max(right.mean(), 1 - right.mean()))
