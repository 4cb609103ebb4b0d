"""Presets of augmentation from the command line, for each kind of data that takes them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from cli_making import Ended, run
from safetensors.torch import save_file
from torch import nn

from prunecli.loading.factory import build_module

USUAL = ("--target-params", "80%", "--lr", "0.05", "--recover", "none", "--epochs", "2")
SPEED = ("--latency-seconds", "0.01", "-q", "--json")

NETS = """
import torch
from torch import nn


class Ears(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.Conv1d(1, 8, 8, stride=4), nn.ReLU(), nn.Conv1d(8, 8, 8, stride=4), nn.ReLU(),
            nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 2),
        )


class Bands(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.Conv1d(20, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 2)
        )


class Reads(nn.Module):
    def __init__(self, out=2):
        super().__init__()
        self.table = nn.Embedding(16, 8)
        self.one = nn.Linear(8, 16)
        self.two = nn.Linear(16, out)

    def each(self, ids):
        return self.two(self.one(self.table(ids)).relu())

    def forward(self, input_ids, attention_mask):
        seen = attention_mask[..., None].float()
        return (self.each(input_ids) * seen).sum(1) / seen.sum(1)


class Writes(Reads):
    def __init__(self):
        super().__init__(16)

    def forward(self, input_ids, attention_mask):
        return self.each(input_ids) * attention_mask[..., None].float()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Networks that know nothing, sounds, texts and a table."""
    root = tmp_path_factory.mktemp("augment")
    (root / "nets.py").write_text(NETS)
    rng = np.random.default_rng(0)
    for label, name in enumerate(("high", "low")):
        (root / "sounds" / name).mkdir(parents=True)
        for index in range(20):
            tone = np.sin(np.arange(1600) * (0.6, 0.1)[label]) + 0.2 * rng.normal(size=1600)
            soundfile.write(root / "sounds" / name / f"{index}.wav", 0.3 * tone, 16000)
    lines = [
        f'"the {word} sun in the {word} rain",{word}' for word in ("good", "bad") for _ in range(20)
    ]
    (root / "texts.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    (root / "words.txt").write_text("the good sun in the bad rain. " * 90)
    np.savez(root / "table.npz", x=rng.normal(size=(40, 6)), y=rng.integers(0, 2, 40))
    _processors(root)
    return root


def _processors(root: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, WhisperFeatureExtractor

    WhisperFeatureExtractor(feature_size=20, chunk_length=1).save_pretrained(root / "extractor")
    words = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    words += ("the", "good", "bad", "sun", "rain", "in", ".")
    own = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, "[UNK]"))
    own.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    own.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=own,
        **{f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")},
    ).save_pretrained(root / "tokenizer")


def words_for(folder: Path, name: str, data: str, *more: str) -> list[str]:
    torch.manual_seed(0)
    net: nn.Module = build_module(f"{folder / 'nets.py'}:{name}", {}, ())[0]
    save_file(net.state_dict(), folder / f"{name}.safetensors")
    first = [str(folder / f"{name}.safetensors"), "--model", f"{folder / 'nets.py'}:{name}"]
    return [*first, "--data", str(folder / data), *USUAL, *more]


def case(folder: Path, kind: str) -> list[str]:
    """What prunes one network, without `--augment`."""
    tokens = ("--processor", str(folder / "tokenizer"))
    return {
        "sounds": lambda: words_for(folder, "Ears", "sounds", "--input-shape", "1,1,1600"),
        "features": lambda: words_for(
            folder, "Bands", "sounds", "--processor", str(folder / "extractor")
        ),
        "texts": lambda: words_for(folder, "Reads", "texts.csv", *tokens),
        "matched": lambda: words_for(folder, "Reads", "texts.csv", *tokens, "--task", "match"),
        "language": lambda: words_for(
            folder,
            "Writes",
            "words.txt",
            *tokens,
            "--task",
            "language-modelling",
            "--max-length",
            "12",
        ),
    }[kind]()


def report_of(ended: Ended) -> dict[str, Any]:
    assert ended.code == 0, ended.err
    found: dict[str, Any] = json.loads(ended.out)
    return found


def losses(report: dict[str, Any]) -> list[float]:
    return [row["train_loss"] for row in report["training"]]


@pytest.mark.parametrize(
    ("kind", "more", "note"),
    [
        (
            "sounds",
            ("--mixup", "0.3"),
            "sounds are changed by: gain within 6 dB, polarity, rot",
        ),
        ("features", (), "sounds are changed by: 2 masks over up to 10 of 100 times and 2 masks"),
        ("texts", (), "texts are changed by: leaving out 5% and masking 10% of the tokens"),
        ("language", (), "texts are changed by: masking 10% of the tokens; none is left out or mo"),
    ],
    ids=["sounds", "features", "texts", "language"],
)
def test_presets_reach_training(
    kind: str, more: tuple[str, ...], note: str, folder: Path, here: Path
) -> None:
    words = [*case(folder, kind), *SPEED, *more, "--augment", "standard"]
    report = report_of(run("prune", *words, "-o", "a.onnx"))
    assert any(line.startswith(f"training {note}") for line in report["notes"]), report["notes"]


def test_what_is_changed_repeats_and_changes_training(folder: Path, here: Path) -> None:
    """Without labels, where the original sees the changed texts too."""
    words = [*case(folder, "matched"), *SPEED]
    plain = report_of(run("prune", *words, "-o", "plain.onnx"))
    assert not any("are changed by" in line for line in plain["notes"])
    once, again = (
        report_of(run("prune", *words, "-o", f"{name}.onnx", "--augment", "strong"))
        for name in ("once", "again")
    )
    assert losses(once) == losses(again) != losses(plain)
    one, two = (torch.export.load(f"{name}.pt2").state_dict for name in ("once", "again"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_tables_take_none(folder: Path, here: Path) -> None:
    (folder / "mlp.py").write_text(
        "from torch import nn\n\ndef net():\n"
        "    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))\n"
    )
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    save_file(net.state_dict(), folder / "mlp.safetensors")
    words = [folder / "mlp.safetensors", "--model", f"{folder / 'mlp.py'}:net"]
    data = ("--data", str(folder / "table.npz"), "--augment", "strong")
    ended = run("prune", *words, *data, *USUAL, *SPEED)
    assert ended.code == 2
    assert ended.err.splitlines()[-2:] == [
        "ERROR --augment strong: is for images, sounds and texts, got examples of 6, which it "
        "leaves as they are",
        "TIP leave it out, or use --augment none",
    ]
