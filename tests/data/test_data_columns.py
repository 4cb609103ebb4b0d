"""Several target columns, named ones, and lists, in CSV, JSON lines and parquet."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from data_making import png, read

from prunecli.errors import PrunecliError
from prunecli.parsing import parse_task

COUNT = 40


def write(file: Path, **more: list[object]) -> Path:
    """Columns that know their row; a CSV file."""
    columns: dict[str, list[object]] = {
        "p": list(range(COUNT)),
        "q": [i / 2 for i in range(COUNT)],
        "digit": [i % 3 for i in range(COUNT)],
        "angle": [i / 4 for i in range(COUNT)],
        "red": [i % 2 for i in range(COUNT)],
        "blue": [int(i % 5 == 0) for i in range(COUNT)],
        **more,
    }
    rows = [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]
    if file.suffix == ".csv":
        lines = [",".join(columns)] + [",".join(map(str, row.values())) for row in rows]
        file.write_text("\n".join(lines) + "\n")
    elif file.suffix == ".jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pq.write_table(pa.table(columns), file)
    return file


@pytest.fixture(params=["a.csv", "a.jsonl", "a.parquet"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write(tmp_path / str(request.param))


def test_columns_by_the_names_of_outputs(file: Path) -> None:
    data = read(file, task=parse_task("digit=classification,angle=regression"))
    rows = data.train.inputs[0][:, 0]
    assert data.train.inputs[0].shape[1] == 4
    assert [labels.name for labels in data.labels] == ["digit", "angle"]
    assert torch.equal(data.train.targets[0], rows.long() % 3)
    assert torch.equal(data.train.targets[1], rows / 4)
    assert any(note.startswith("target digit: column 'digit'") for note in data.notes)


def test_columns_by_the_users_names(file: Path) -> None:
    data = read(
        file,
        task=parse_task("one=classification,two=regression"),
        target_columns=("digit", "angle"),
        input_columns=("q", "p"),
    )
    assert torch.equal(data.train.inputs[0][:, 0] * 2, data.train.inputs[0][:, 1])
    assert torch.equal(data.train.targets[1], data.train.inputs[0][:, 1] / 4)
    assert "2 features: q, p" in data.notes


def test_several_numbers(file: Path) -> None:
    data = read(file, task=parse_task("regression"), target_columns=("angle", "q"))
    assert torch.equal(data.train.targets[0][:, 0] * 2, data.train.targets[0][:, 1])
    assert data.train.inputs[0].shape[1] == 4


def test_several_labels(file: Path) -> None:
    data = read(file, task=parse_task("multilabel"), target_columns=("red", "blue"))
    rows = data.train.inputs[0][:, 0].long()
    assert torch.equal(data.train.targets[0][:, 0].long(), rows % 2)
    assert torch.equal(data.train.targets[0][:, 1].long(), (rows % 5 == 0).long())
    assert "target: 2 labels, each of them yes or no: red, blue" in data.notes


def test_one_column_by_name_or_the_last(file: Path) -> None:
    data = read(file, target_columns=("digit",))
    assert torch.equal(data.train.targets[0], data.train.inputs[0][:, 0].long() % 3)
    data = read(file, task=parse_task("regression"), target_columns=("red",))
    assert data.train.targets[0].dtype == torch.float32


def test_no_target_to_match(tmp_path: Path) -> None:
    data = read(write(tmp_path / "a.csv"), task=parse_task("match"))
    assert data.train.inputs[0].shape[1] == 6
    data = read(write(tmp_path / "a.csv", label=[0] * COUNT), task=parse_task("match"))
    assert data.train.inputs[0].shape[1] == 6
    assert data.train.targets == ()


@pytest.mark.parametrize(
    ("lists", "wanted"),
    [
        ([[i % 2, 1] for i in range(COUNT)], lambda i: [i % 2, 1]),
        ([["a"] * (i % 2) + ["c"] for i in range(COUNT)], lambda i: [i % 2, 1]),
        ([[2] * (i % 2) + [0] for i in range(COUNT)], lambda i: [1, 0, i % 2]),
    ],
    ids=["rows", "names", "numbers"],
)
def test_lists_of_labels(lists: list[object], wanted: object, tmp_path: Path) -> None:
    assert callable(wanted)
    for name in ("a.jsonl", "a.parquet"):
        data = read(write(tmp_path / name, labels=lists), task=parse_task("multilabel"))
        found = data.train.targets[0].long().tolist()
        rows = data.train.inputs[0][:, 0].long().tolist()
        assert found == [wanted(row) for row in rows]
        (tmp_path / name).unlink()


def test_images_with_several_targets(tmp_path: Path) -> None:
    images = [png(i % 2, i) for i in range(COUNT)]
    table = write(tmp_path / "a.parquet", image=images)
    data = read(table, task=parse_task("digit=classification,angle=regression"))
    rows = data.train.inputs[0][:, 1, 0, 0].long()
    assert torch.equal(data.train.targets[0], rows % 3)
    assert torch.equal(data.train.targets[1], rows / 4)
    data = read(table, task=parse_task("regression"), target_columns=("q",))
    assert torch.equal(data.train.targets[0] * 2, data.train.inputs[0][:, 1, 0, 0].float())
    data = read(table, task=parse_task("multilabel"))
    assert data.train.targets[0].shape[1] == 2
    data = read(table, task=parse_task("match"))
    assert data.train.targets == ()


@pytest.mark.parametrize(
    ("task", "config", "message", "hint"),
    [
        ("digit=classification,tilt=regression", {}, "a.csv: a column 'tilt' of targets is needed",
         "--target-column"),
        ("a=classification,b=regression", {"target_columns": ("digit",)},
         "--target-column: one column for each of 2 outputs is needed, got digit", "in the order"),
        ("multilabel", {"target_columns": ("red", "p")},
         "a.csv: column 'p' must hold 0 and 1 only, got 2", "0 and 1"),
        ("multilabel", {}, "a.csv: --task multilabel needs a list of labels, or a column of 0 and",
         "--target-column"),
        ("classification", {"target_columns": ("angle",)},
         "a.csv: --task classification needs one class for each example, got column 'angle'",
         "--task"),
        ("regression", {"target_columns": ("nothing",)},
         "--target-column: must name columns of a.csv, got 'nothing'", "p, q, digit"),
        ("token-classification", {}, "a.csv: --task token-classification needs texts", "--task"),
        ("regression", {"max_length": 9}, "--max-length: has no effect on a table of numbers",
         "leave"),
        ("regression", {"target_columns": ("p",), "input_columns": ("p",)},
         "--input-column: must differ from --target-column, got 'p' in both", "either"),
    ],
)  # fmt: skip
def test_what_does_not_fit(
    task: str, config: dict[str, object], message: str, hint: str, tmp_path: Path
) -> None:
    file = write(tmp_path / "a.csv")
    with pytest.raises(PrunecliError) as caught:
        read(file, task=parse_task(task), **config)
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": 1}\n{"a": \n', "it cannot be read as JSON lines: "),
        ("[1, 2]", "it cannot be read as JSON lines: "),
        ("", "it cannot be read as JSON lines: "),
        ("[]", "rows are needed, got an empty file"),
    ],
)
def test_bad_json(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(PrunecliError) as caught:
        read(tmp_path / "a.json")
    assert message in caught.value.message
    assert "\n" not in caught.value.message
