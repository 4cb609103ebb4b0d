"""Texts: token numbers worked out by hand, for each kind of file and task."""

import json
import socket
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from data_making import read
from text_making import number, read_texts, save_tokenizer

from prunecli.data.contents import Beside, Words
from prunecli.errors import ConfigError, DataError, PrunecliError


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def numbers(text: str, length: int) -> list[int]:
    """`[CLS] text [SEP]`, padded."""
    found = [number(token) for token in ("[CLS]", *text.split(), "[SEP]")]
    return found + [number("[PAD]")] * (length - len(found))


TEXTS = ("good", "the bad rain .", "sun in the rain", "play ##ing is bad")
"""The last word but one of the last text is not in the vocabulary."""


def rows(count: int = 40) -> list[dict[str, object]]:
    texts = ("good", "the bad rain.", "Sun in the rain", "playing is bad")
    labels = ("fine", "poor", "fine", "poor")
    return [{"text": texts[i % 4], "label": labels[i % 4], "id": i} for i in range(count)]


def write(folder: Path, form: str, found: list[dict[str, object]]) -> Path:
    file = folder / f"train.{form}"
    if form == "csv":
        lines = [",".join(found[0])]
        lines += [",".join(f'"{value}"' for value in row.values()) for row in found]
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    elif form == "jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
    elif form == "json":
        file.write_text(json.dumps(found), encoding="utf-8")
    else:
        pq.write_table(pa.Table.from_pylist(found), file)
    return file


@pytest.mark.parametrize("form", ["csv", "jsonl", "json", "parquet"])
def test_texts_with_labels(form: str, tmp_path: Path, tokenizer: Path) -> None:
    data = read_texts(write(tmp_path, form, rows()), tokenizer)
    assert data.names == ("input_ids", "attention_mask")
    wanted = {tuple(numbers(text.replace("is", "[UNK]"), 6)): text for text in TEXTS}
    ids, mask = data.train.inputs
    for row, seen, target in zip(ids.tolist(), mask.tolist(), data.train.targets[0], strict=True):
        text = wanted[tuple(row)]
        assert data.labels[0].classes[target] == ("poor" if "bad" in text else "fine")
        assert sum(seen) == len(text.split()) + 2
        assert seen == sorted(seen, reverse=True)
    assert {tuple(row) for row in ids.tolist()} == wanted.keys()
    assert "texts: column 'text', padded to 6 tokens, the longest" in data.notes
    assert "target: column 'label', 2 classes: fine, poor" in data.notes


def test_classes_are_counted_as_the_network_does(tmp_path: Path, tokenizer: Path) -> None:
    file = write(tmp_path, "jsonl", rows())
    data = read_texts(file, tokenizer, classes=("poor", "so-so", "fine"))
    assert data.labels[0].classes == ("poor", "so-so", "fine")
    assert set(data.train.targets[0].tolist()) == {0, 2}
    data = read_texts(file, tokenizer, classes=("LABEL_0", "LABEL_1"))
    assert data.labels[0].classes == ("fine", "poor")


def test_longer_texts_are_cut_and_counted(tmp_path: Path, tokenizer: Path) -> None:
    file = write(tmp_path, "jsonl", rows())
    for limits in ({"max_length": 5}, {"longest": 5}):
        data = read_texts(file, tokenizer, **limits)
        ids, mask = data.train.inputs
        assert ids.shape[1] == 5
        assert {row[-1] for row in ids[mask[:, -1] == 1].tolist()} == {number("[SEP]")}
        note = "texts: column 'text', padded to 5 tokens (30 of 40 texts were cut to that)"
        assert note in data.notes
    with pytest.raises(ConfigError, match="--max-length: at most 5 tokens fit the network, got 9"):
        read_texts(file, tokenizer, longest=5, max_length=9)


def test_pairs_say_which_text_a_token_is_of(tmp_path: Path, tokenizer: Path) -> None:
    found = [{"premise": "good sun", "hypothesis": "rain", "label": i % 2} for i in range(20)]
    data = read_texts(write(tmp_path, "jsonl", found), tokenizer)
    assert data.names == ("input_ids", "attention_mask", "token_type_ids")
    tokens = ("[CLS]", "good", "sun", "[SEP]", "rain", "[SEP]")
    assert data.train.inputs[0][0].tolist() == [number(token) for token in tokens]
    assert data.train.inputs[2][0].tolist() == [0, 0, 0, 0, 1, 1]
    # Named the other way round, and by the user.
    data = read_texts(tmp_path / "train.jsonl", tokenizer, input_columns=("hypothesis", "premise"))
    assert data.train.inputs[2][0].tolist() == [0, 0, 0, 1, 1, 1]


def test_networks_with_names_of_their_own(tmp_path: Path, tokenizer: Path) -> None:
    file = write(tmp_path, "csv", rows())
    data = read_texts(file, tokenizer, inputs=("words",), processor=tokenizer)
    assert data.names == ()
    assert len(data.train.inputs) == 1
    data = read_texts(file, tokenizer, inputs=("padding_mask", "words"), processor=tokenizer)
    assert data.names == ("padding_mask", "words")
    assert data.train.inputs[0].max() == 1
    assert data.train.inputs[1].max() > 1


def test_numbers_and_several_labels(tmp_path: Path, tokenizer: Path) -> None:
    found = [
        {
            "review": ("good", "bad")[i % 2],
            "stars": i / 2,
            "sunny": i % 2,
            "warm": int(i % 3 == 0),
        }
        for i in range(30)
    ]
    file = write(tmp_path, "jsonl", found)
    data = read_texts(file, tokenizer, "regression", target_columns=("stars",))
    assert data.train.targets[0].dtype == torch.float32
    assert set((data.train.targets[0] * 2).tolist()) <= set(range(30))
    data = read_texts(file, tokenizer, "multilabel")
    assert data.train.targets[0].shape[1] == 2
    good = data.train.inputs[0][:, 1] == number("good")
    assert torch.equal(data.train.targets[0][:, 0] == 0, good)
    heads = "sunny=classification,stars=regression"
    data = read_texts(file, tokenizer, heads)
    assert [labels.name for labels in data.labels] == ["sunny", "stars"]
    assert torch.equal((data.train.targets[1] * 2).long() % 2, data.train.targets[0])


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_words_with_a_tag_each(form: str, tmp_path: Path, tokenizer: Path) -> None:
    sentences = [(["good", "playing"], ["O", "VERB"]), (["the", "rain", "plays"], list("OOV"))]
    sentences[1] = (sentences[1][0], ["O", "NOUN", "VERB"])
    found: list[dict[str, object]] = [
        {
            "tokens": words if form == "jsonl" else " ".join(words),
            "ner_tags": tags if form == "jsonl" else " ".join(tags),
        }
        for words, tags in sentences * 10
    ]
    data = read_texts(write(tmp_path, form, found), tokenizer, "token-classification")
    assert data.labels[0].classes == ("NOUN", "O", "VERB")
    seen = {
        tuple(ids): tuple(tags)
        for ids, tags in zip(
            data.train.inputs[0].tolist(), data.train.targets[0].tolist(), strict=True
        )
    }
    # Only a word's first token has its tag.
    assert seen == {
        tuple(numbers("good play ##ing", 6)): (-100, 1, 2, -100, -100, -100),
        tuple(numbers("the rain play ##s", 6)): (-100, 1, 0, 2, -100, -100),
    }


def test_tags_as_numbers_that_the_file_names(tmp_path: Path, tokenizer: Path) -> None:
    from datasets import ClassLabel, Dataset, Features, List, Value

    names = ["O", "NOUN", "VERB"]
    features = Features({"words": List(Value("string")), "tags": List(ClassLabel(names=names))})
    found = {"words": [["good", "sun"]] * 20, "tags": [[0, 1]] * 20}
    Dataset.from_dict(found, features=features).to_parquet(tmp_path / "train.parquet")
    data = read_texts(tmp_path / "train.parquet", tokenizer, "token-classification")
    assert data.labels[0].classes == ("O", "NOUN", "VERB")
    assert data.labels[0].named
    assert data.train.targets[0][0].tolist() == [-100, 0, 1, -100]


@pytest.mark.parametrize("form", ["txt", "jsonl"])
def test_language_is_cut_into_blocks(form: str, tmp_path: Path, tokenizer: Path) -> None:
    text = "the sun in the rain. " * 40
    if form == "txt":
        (tmp_path / "train.txt").write_text(text)
    else:
        write(tmp_path, "jsonl", [{"text": "the sun in the rain."}] * 40)
    data = read_texts(tmp_path, tokenizer, "language-modelling", max_length=12)
    ids, mask = data.train.inputs
    count = len(data.train) + len(data.choose) + len(data.validation)
    assert count == 40 * 6 // 12
    cycle = [number(token) for token in ("the", "sun", "in", "the", "rain", ".")]
    assert ids.tolist() == [cycle * 2] * len(ids)
    assert torch.equal(data.train.targets[0], ids.long())
    assert bool((mask == 1).all())


def test_hidden_tokens(tmp_path: Path, tokenizer: Path) -> None:
    (tmp_path / "train.txt").write_text("the sun in the rain. " * 2000)
    task = "masked-language-modelling"
    data = read_texts(tmp_path, tokenizer, task, max_length=32)
    ids, targets = data.train.inputs[0], data.train.targets[0]
    assert set(ids[:, 0].tolist()) == {number("[CLS]")}
    assert set(ids[:, -1].tolist()) == {number("[SEP]")}
    chosen = targets != -100
    assert 0.12 < float(chosen.float().mean()) < 0.17
    hidden = ids == number("[MASK]")
    assert bool((hidden <= chosen).all())
    assert 0.75 < float(hidden[chosen].float().mean()) < 0.85
    again = read_texts(tmp_path, tokenizer, task, max_length=32)
    assert torch.equal(ids, again.train.inputs[0])
    other = read_texts(tmp_path, tokenizer, task, max_length=32, seed=1)
    assert not torch.equal(ids, other.train.inputs[0])


def test_texts_without_labels_to_match(tmp_path: Path, tokenizer: Path) -> None:
    data = read_texts(write(tmp_path, "jsonl", rows()), tokenizer, "match")
    assert data.labels == data.train.targets == ()
    assert data.train.inputs[0].shape[1] == 6


def test_splits_have_one_length(tmp_path: Path, tokenizer: Path) -> None:
    write(tmp_path, "jsonl", rows(20))
    (tmp_path / "validation.jsonl").write_text(
        "".join(
            json.dumps({"text": "good " * 9, "label": label}) + "\n" for label in ("fine", "poor")
        )
    )
    data = read_texts(tmp_path, tokenizer)
    assert data.train.inputs[0].shape[1] == data.validation.inputs[0].shape[1] == 11


TEXT_ROWS = [{"text": "good", "label": i % 2} for i in range(20)]
TAGGED = [{"words": ["good", "sun"], "tags": [0, 1]} for _ in range(20)]
TOKENS = "token-classification"


@pytest.mark.parametrize(
    ("found", "task", "config", "message", "hint"),
    [
        ([{"a": "x", "b": "y", "label": 1}], None, {},
         "train.jsonl: one column of texts is needed, got 'a', 'b'", "--input-column"),
        ([{"text": "x"}] * 9, None, {}, "train.jsonl: a column of targets is needed, got 'text'",
         "--target-column"),
        ([*TEXT_ROWS, {"text": None, "label": 0}], None, {},
         "column 'text' must be complete, got no value (data row 21)", "fill in"),
        (TEXT_ROWS, None, {"input_columns": ("title",)},
         "--input-column: must name columns of train.jsonl, got 'title'", "text, label"),
        (TEXT_ROWS, None, {"target_columns": ("stars",)},
         "--target-column: must name columns of train.jsonl, got 'stars'", "text, label"),
        (TEXT_ROWS, "x=classification", {}, "a column 'x' of targets is needed",
         "--target-column"),
        (TEXT_ROWS, None, {"image_size": 8}, "--image-size: has no effect on texts", "leave"),
        (TEXT_ROWS, "match", {"target_columns": ("label",)},
         "--target-column: has no effect with --task match", "leave"),
        (TEXT_ROWS, None, {"target_columns": ("label", "text")},
         "--target-column: several columns are for multilabel", "--task multilabel"),
        (TEXT_ROWS, "segmentation", {}, "--task segmentation needs images with masks", "--task"),
        (TEXT_ROWS, "language-modelling", {"max_length": 99}, "at least 99 tokens of text are",
         "--max-length 32"),
        ([*TAGGED, {"words": ["good"], "tags": [0, 1]}], TOKENS, {},
         "a tag in 'tags' for each of 1 words is needed, got 2 (data row 21)", "as many tags"),
        ([{"words": ["good"], "tags": [-2]}] * 9, TOKENS, {}, "tags must count from 0, got -2",
         "-100"),
        ([{"words": ["good"], "tags": 1}] * 9, TOKENS, {},
         "column 'tags' must hold a tag for each word, got int64", "lists of tags"),
    ],
)  # fmt: skip
def test_bad_texts(
    found: list[dict[str, object]],
    task: str | None,
    config: dict[str, object],
    message: str,
    hint: str,
    tmp_path: Path,
    tokenizer: Path,
) -> None:
    with pytest.raises(PrunecliError) as caught:
        read_texts(write(tmp_path, "jsonl", found), tokenizer, task, **config)
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")
    assert caught.value.exit_code == 2


def test_without_a_tokenizer(tmp_path: Path) -> None:
    file = write(tmp_path, "jsonl", rows())
    with pytest.raises(DataError, match=r"texts need .*, got none$") as caught:
        read_texts(file, None)
    assert "--processor FOLDER" in (caught.value.hint or "")
    with pytest.raises(DataError, match=f"got none in {tmp_path}"):
        read_texts(file, tmp_path)
    # A network that takes no tokens.
    with pytest.raises(DataError, match="column 'text' must hold numbers, got 'good'") as caught:
        read(file)
    assert "--processor" in (caught.value.hint or "")


def test_a_broken_tokenizer_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(PrunecliError, match=r"tokenizer .*: raised ") as caught:
        read_texts(write(tmp_path, "jsonl", rows()), tmp_path)
    assert "\n" not in caught.value.message


def test_no_code_from_the_folder_runs(tmp_path: Path) -> None:
    folder = save_tokenizer(tmp_path / "tokenizer")
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config |= {"auto_map": {"AutoTokenizer": ["own.Own", "own.Own"]}, "tokenizer_class": "Own"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(PrunecliError, match="tokenizer"):
        read_texts(write(tmp_path, "jsonl", rows()), folder)
    assert not (tmp_path / "ran").exists()


def test_plain_text_has_no_labels(tmp_path: Path, tokenizer: Path) -> None:
    (tmp_path / "a.txt").write_text("good")
    with pytest.raises(DataError, match="plain text has no labels, got --task regression"):
        read_texts(tmp_path, tokenizer, "regression")
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="it cannot be read as text"):
        read_texts(tmp_path, tokenizer, "language-modelling")


def test_numbers_are_stored_small(tmp_path: Path, tokenizer: Path) -> None:
    data = read_texts(write(tmp_path, "jsonl", rows()), tokenizer)
    assert [item.dtype for item in data.train.inputs] == [torch.int32, torch.int8]
    assert np.asarray(data.train.targets[0]).dtype == np.int64


def test_a_text_may_have_lines_and_quotes(tmp_path: Path, tokenizer: Path) -> None:
    lines = ["text,label", *('"good\nthe ""sun"", rain",' + str(i % 2) for i in range(20))]
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
    data = read_texts(tmp_path / "a.csv", tokenizer)
    row = data.train.inputs[0][0].tolist()
    unknown = number("[UNK]")
    words = [number(token) for token in ("[CLS]", "good", "the")]
    assert row == [
        *words,
        *(unknown, number("sun"), unknown, unknown, number("rain"), number("[SEP]")),
    ]


def test_what_is_known_of_tokens(tmp_path: Path, tokenizer: Path) -> None:
    from transformers import AutoTokenizer

    file = write(tmp_path, "jsonl", rows())
    special = {name: number(name) for name in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")}
    fixed = tuple(sorted(set(special.values()) - {special["[UNK]"]}))
    covers = (special["[MASK]"], special["[UNK]"])
    whole = Words(fixed, special["[PAD]"], covers=covers)
    assert read_texts(file, tokenizer).contents == (whole, Beside.SEEN)
    blocks = read_texts(file, tokenizer, "language-modelling", inputs=("input_ids",), max_length=8)
    assert blocks.contents == (whole,)
    own = AutoTokenizer.from_pretrained(tokenizer, padding_side="left")
    own.mask_token = None
    own.save_pretrained(tmp_path / "left")
    (found,) = read_texts(file, tmp_path / "left", inputs=("input_ids",)).contents
    assert isinstance(found, Words)
    assert found.left
    assert found.covers == (special["[UNK]"],)
    # As in GPT-2: one token for all, which then stands for no word.
    own.unk_token = own.eos_token = own.pad_token = "[SEP]"
    own.save_pretrained(tmp_path / "one")
    (found,) = read_texts(file, tmp_path / "one", inputs=("input_ids",)).contents
    assert isinstance(found, Words)
    assert (found.covers, found.padding) == ((), special["[SEP]"])
    assert special["[SEP]"] in found.fixed
