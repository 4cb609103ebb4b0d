"""CSV: the target column, its task, and numbers that arrive as written."""

from pathlib import Path

import pytest
import torch
from data_making import check, read

from prunecli.tasks import CLASSIFICATION, REGRESSION, Task


def write(path: Path, header: str, row: str, count: int = 40) -> Path:
    """`row` is a format of the row's number `i`."""
    lines = [header] + [
        row.format(i=i, half=i / 2, odd=i % 2, name="ab"[i % 2]) for i in range(count)
    ]
    path.write_text("\n".join(line for line in lines if line) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("header", "row", "target", "task"),
    [
        pytest.param("p,q,r", "{i},{half},{odd}", "r", CLASSIFICATION, id="last-column"),
        pytest.param("p,Label,r", "{i},{odd},{half}", "Label", CLASSIFICATION, id="label"),
        pytest.param("y,q,r", "{odd},{half},{i}", "y", CLASSIFICATION, id="y"),
        pytest.param("p;q;r", "{i};{half};{odd}", "r", CLASSIFICATION, id="semicolons"),
        pytest.param("p\tq\tr", "{i}\t{half}\t{odd}", "r", CLASSIFICATION, id="tabs"),
        pytest.param("", "{i},{half},{odd}", "column 3", CLASSIFICATION, id="no-header"),
        pytest.param("p,q,r", "{i},{half},{half}", "r", REGRESSION, id="floats"),
        pytest.param("p,q,r", "{odd},{half},{i}", "r", REGRESSION, id="many-integers"),
        pytest.param("p,q,class", "{i},{half},{name}", "class", CLASSIFICATION, id="text"),
    ],
)
def test_target_and_task(tmp_path: Path, header: str, row: str, target: str, task: Task) -> None:
    data = read(write(tmp_path / "a.csv", header, row))
    assert data.task is task
    assert data.notes[0].startswith(f"target: column {target!r}, ")
    assert data.train.inputs[0].shape == (len(data.train), 2)
    assert len(data.train) + len(data.choose) + len(data.validation) == 40


def test_values_arrive_as_written(tmp_path: Path) -> None:
    data = read(write(tmp_path / "a.csv", "p,label,q", "{i},{odd},{half}"))
    assert torch.equal(data.train.inputs[0][:, 0] / 2, data.train.inputs[0][:, 1])
    assert torch.equal(data.train.inputs[0][:, 0].long() % 2, data.train.targets[0])
    assert data.train.inputs[0].dtype == torch.float32


def test_text_classes_are_sorted_and_named(tmp_path: Path) -> None:
    data = read(write(tmp_path / "a.csv", "p,q", "{i},{name}"))
    assert (data.labels[0].classes, data.labels[0].named) == (("a", "b"), True)
    assert torch.equal(data.train.inputs[0][:, 0].long() % 2, data.train.targets[0])


def test_splits_by_file_name_and_columns_by_name(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", "p,q,label", "{i},{half},{odd}")
    write(tmp_path / "validation.csv", "label,q,p", "{odd},{half},{i}", count=6)
    write(tmp_path / "test.csv", "nothing", "x")
    data = read(tmp_path)
    assert data.validation.inputs[0].tolist() == [[i, i / 2] for i in range(6)]
    assert data.validation.targets[0].tolist() == [0, 1, 0, 1, 0, 1]


def test_a_test_file_without_targets_is_left_alone(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", "p,q,label", "{i},{half},{odd}")
    write(tmp_path / "test.csv", "p,q", "{i},{half}")
    data = read(tmp_path)
    assert len(data.validation) == 6
    assert "test.csv has no column 'label' and is not used" in data.notes


def test_flat_rows_become_the_models_images(tmp_path: Path) -> None:
    data = read(
        write(tmp_path / "a.csv", "a,b,c,d,label", "{i},1,2,3,{odd}"), sample_shape=(1, 2, 2)
    )
    assert data.train.inputs[0][0, 0, 1].tolist() == [2.0, 3.0]
    assert "inputs: 4 as 1x2x2" in data.notes


def test_normalisation_by_column(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "p,q,label", "{i},{half},{odd}")
    plain, scaled = read(path), read(path, mean=(1.0, 2.0), std=(4.0, 8.0))
    assert torch.equal(plain.preprocess[0](plain.train.inputs[0]), plain.train.inputs[0])
    expected = (plain.train.inputs[0] - torch.tensor([1.0, 2.0])) / torch.tensor([4.0, 8.0])
    torch.testing.assert_close(scaled.preprocess[0](scaled.train.inputs[0]), expected)
    assert plain.preprocess[0].in_words() == "used as stored"
    assert scaled.preprocess[0].in_words() == "mean 1,2, std 4,8"


def test_byte_order_mark_quotes_and_blank_lines(tmp_path: Path) -> None:
    lines = ["p,q,label", *(f'"{i}", {i} ,{i % 2}' for i in range(20)), ""]
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    data = read(tmp_path / "a.csv")
    assert data.notes[1] == "2 features: p, q"
    assert torch.equal(data.train.inputs[0][:, 0], data.train.inputs[0][:, 1])


def test_outputs_of_regression(tmp_path: Path) -> None:
    data = read(write(tmp_path / "a.csv", "p,q", "{i},{half}"))
    check(data, (4, 1))
    check(data, (4,))
