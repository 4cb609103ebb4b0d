"""Bad data: each has one clear line and a hint, and is never a traceback."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_making import check, image, image_folder, image_parquet, png, read

from prunecli.errors import DataError

Make = Callable[[Path], object]


def npz(**arrays: np.ndarray) -> Make:
    return lambda root: np.savez(root / "a.npz", **arrays)


def csv(text: str, name: str = "a.csv") -> Make:
    return lambda root: (root / name).write_text(text)


def csvs(**texts: str) -> Make:
    return lambda root: [(root / f"{key}.csv").write_text(text) for key, text in texts.items()]


def parquet(**columns: object) -> Make:
    return lambda root: pq.write_table(pa.table(columns), root / "a.parquet")


def parquets(**tables: dict[str, object]) -> Make:
    return lambda root: [
        pq.write_table(pa.table(table), root / f"{key}.parquet") for key, table in tables.items()
    ]


def raw(name: str, content: bytes) -> Make:
    return lambda root: (root / name).write_bytes(content)


def files(*names: str) -> Make:
    """Images that are not images."""

    def make(root: Path) -> None:
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(b"nonsense")

    return make


def folder(*classes: str, each: int = 4, **more: object) -> Make:
    return lambda root: image_folder(root, list(classes), each, **more)


def both(*makes: Make) -> Make:
    return lambda root: [make(root) for make in makes]


def one_of_two_sizes(root: Path) -> None:
    image_folder(root, ["a", "b"], 4)
    image(0, 0, (10, 12)).save(root / "b" / "002.png")


X, Y = np.zeros((20, 3), np.float32), np.arange(20) % 2
ROWS = "\n".join(f"{i},{i / 2},{i % 2}" for i in range(20))
IMAGES = [png(i % 2, i) for i in range(20)]
NAN = np.where(np.arange(60).reshape(20, 3) == 22, np.nan, X)

CASES = [
    ("missing", lambda root: None, "nowhere", "nowhere: no such file or folder", "--data"),
    ("empty folder", lambda root: None, "", "CSV is needed, got an empty folder", "--data"),
    ("other files", raw("a.md", b"x"), "", "CSV is needed, got a.md", "--data"),
    ("unknown format", raw("a.mat", b"x"), "a.mat", "CSV is needed, got a .mat file", "--data"),
    ("archive", raw("a.zip", b"x"), "a.zip", "CSV is needed, got a .zip file", "unpack it first"),
    ("no class folders", files("1.png"), "", "images must lie in class sub-folders, got none",
     "one sub-folder for each class"),
    ("one class", folder("a"), "", "at least 2 classes are needed, got 1 (a)", "sub-folder"),
    ("one level too high", files("set/a/1.png", "set/b/1.png"), "",
     "at least 2 classes are needed, got 1 (set)", "--data {root}/set"),
    ("class folders without images", both(files("train/a/1.txt", "train/b/1.txt", "val/a/1.png")),
     "", "train: images are needed, got none in its sub-folders", "sub-folder"),
    ("class only in validation", files("train/a/1.png", "train/b/1.png", "val/c/1.png"), "",
     "classes must be those of the training data, got 'c' as well", "same class sub-folders"),
    ("no good image", files("a/1.png", "b/1.png", "a/2.png", "b/2.png"), "",
     "no image can be read (", "common format"),
    ("most images broken", both(folder("a", "b"), files(*(f"a/{i}.png" for i in range(20)))), "",
     "at least half of the images must be readable, got only ", "common format"),
    ("sizes differ", one_of_two_sizes, "",
     "images must have one size, got ", "--image-size "),
    ("garbage parquet", raw("a.parquet", b"nonsense"), "a.parquet",
     "a.parquet: it cannot be read as parquet: ", "Git LFS"),
    ("empty parquet file", raw("a.parquet", b""), "a.parquet",
     "a.parquet: it cannot be read as parquet: ", "Git LFS"),
    ("parquet without label", parquet(image=IMAGES), "a.parquet",
     "a.parquet: a label column is needed beside the images, got none", "'label'"),
    ("two image columns", parquet(a=IMAGES, b=IMAGES, label=Y), "",
     "a.parquet: one image column is needed, got a, b", "'image'"),
    ("no rows", parquet(image=pa.array([], pa.binary()), label=pa.array([], pa.int64())), "",
     "targets that count are needed, got none", "labels"),
    ("one label", parquet(image=IMAGES, label=Y * 0), "",
     "a.parquet: examples of at least 2 classes are needed, got 1", "labels"),
    ("negative label", parquet(image=IMAGES, label=Y - 1), "",
     "a.parquet: labels must count from 0, got -1 (row 1)", "number the classes from 0"),
    ("label missing", parquet(image=IMAGES, label=[*Y[:19].tolist(), None]), "",
     "a.parquet: column 'label' must be complete, got no value (data row 20)", "fill in"),
    ("label beyond the names",
     lambda root: image_parquet(root / "a.parquet", [0, 1, 2] * 5, ["a", "b"]), "",
     "labels must be below 2, the number of class names in the file, got 2", "class names"),
    ("shards differ", parquets(**{"train-0": {"image": IMAGES, "label": Y},
                                  "train-1": {"image": IMAGES, "klass": Y}}), "",
     "train-1.parquet: columns must be the first file's, 'label' is missing", "same columns"),
    ("text in a parquet feature", parquet(a=["x"] * 20, label=Y), "",
     "a.parquet: column 'a' must hold numbers, got 'x' (data row 1)", "encode it"),
    ("lists in a parquet feature", parquet(a=[[1.0, 2.0]] * 20, label=Y), "",
     "a.parquet: column 'a' must hold numbers, got ", "encode it"),
    ("different columns", parquets(train={"a": Y, "label": Y}, val={"b": Y, "label": Y}), "",
     "val.parquet: columns must be those of train.parquet, got a difference in 'a', 'b'",
     "same columns"),
    ("arrays without a known name", npz(foo=X, bar=Y), "",
     "inputs and targets are needed, got foo, bar", "x_train"),
    ("inputs only", npz(x_train=X), "", "an array of targets is needed beside 'x_train', got none",
     "x_train"),
    ("two arrays of inputs", npz(x=X, images=X, y=Y), "",
     "one array of inputs is needed for train, got 'x' and 'images'", "x_train"),
    ("lengths differ", npz(x=X, y=Y[:7]), "a.npz",
     "a.npz: inputs and targets must have the same length, got 20 and 7", "one target for each"),
    ("empty arrays", npz(x=X[:0], y=Y[:0]), "a.npz", "a.npz: examples are needed", "--data"),
    ("pickled array", npz(x=X, y=np.array([{}] * 20, dtype=object)), "a.npz",
     "a.npz: arrays of plain numbers are needed, got pickled objects", "never opened"),
    ("garbage npz", raw("a.npz", b"nonsense"), "a.npz",
     "a.npz: it cannot be read as NumPy arrays: its content is not NumPy's format", "cut short"),
    ("truncated npz", raw("a.npz", b"PK\x03\x04nonsense"), "a.npz",
     "a.npz: it cannot be read as NumPy arrays: File is not a zip file", "cut short"),
    ("lone npy", raw("x.npy", b"nonsense"), "x.npy",
     "an array of targets is needed beside 'x', got none", "x_train"),
    ("garbage npy", both(raw("x.npy", b"nonsense"), raw("y.npy", b"nonsense")), "",
     "x.npy: it cannot be read as NumPy arrays: its content is not NumPy's format", "cut short"),
    ("text inputs", npz(x=np.array(["a"] * 20), y=Y), "", "a.npz: inputs must be numbers, got <U1",
     "numeric dtype"),
    ("NaN in inputs", npz(x=NAN, y=Y), "",
     "a.npz: inputs must be finite numbers, got NaN or infinity (row 8)", "fill in"),
    ("NaN in targets", npz(x=X, y=NAN[:, 1]), "",
     "a.npz: targets must be finite numbers, got nan (row 8)", "fill in"),
    ("several labels", npz(x=X, y=np.ones((20, 3), np.int64)), "",
     "a.npz: targets must be one class, or some floats, for each example, got 3 of int64",
     "integers are classes"),
    ("kinds of targets differ", npz(x_train=X, y_train=Y, x_val=X, y_val=Y * 0.5), "",
     "targets of all splits must have one type, got int64, float64", "integers are classes"),
    ("shapes of splits differ", npz(x_train=X, y_train=Y, x_val=X[:, :2], y_val=Y), "",
     "inputs must have the shape of the training data, (3,), got (2,)", "same shape"),
    ("unclear channels", npz(x=np.zeros((20, 5, 6, 4), np.uint8), y=Y), "",
     "a.npz: images need an axis of 1 or 3 channels, got 5x6x4", "--input-shape 1,5,6,4"),
    ("two examples", npz(x=X[:2], y=Y[:2]), "",
     "a.npz: at least 2 examples needed for training and choosing, got 1",
     "leave out --data"),
    ("empty CSV", csv(""), "a.csv", "a.csv: rows are needed, got an empty file", "--data"),
    ("header only", csv("a,b,label\n"), "a.csv", "a.csv: rows are needed, got an empty table",
     "--data"),
    ("ragged CSV", csv("a,b,label\n1,2,0\n1,2\n1,2,1\n"), "a.csv",
     "a.csv: every row must have 3 columns, got 2 (line 3)", "separator"),
    ("one column", csv("label\n0\n1\n"), "a.csv",
     "a.csv: feature columns are needed besides the target, got 'label' only", "separator"),
    ("twice the same column", csv("a,a,label\n1,2,0\n"), "a.csv",
     "a.csv: columns must have different names, got 'a' twice", "rename"),
    ("text in a feature", csv("a,b,label\n1,2,0\n1,red,1\n"), "a.csv",
     "a.csv: column 'b' must hold numbers, got 'red' (data row 2)", "encode it"),
    ("NaN in a feature", csv(f"a,b,label\n{ROWS}\n1,nan,1\n"), "a.csv",
     "a.csv: column 'b' must be complete, got no value (data row 21)", "fill in"),
    ("nothing in a feature", csv(f"a,b,label\n1,,1\n{ROWS}\n"), "a.csv",
     "a.csv: column 'b' must be complete, got no value (data row 1)", "fill in"),
    ("infinity in a feature", csv(f"a,b,label\n1,inf,1\n{ROWS}\n"), "a.csv",
     "a.csv: column 'b' must hold finite numbers, got inf (data row 1)", "fill in"),
    ("date in a feature", csv("a,b,label\n1,2020-01-01,0\n2,2020-01-02,1\n"), "a.csv",
     "a.csv: column 'b' must hold numbers, got '2020-01-01", "encode it"),
    ("target missing", csv(f"a,b,label\n{ROWS}\n1,2,\n"), "a.csv",
     "a.csv: column 'label' must be complete, got no value (data row 21)", "fill in"),
    ("names as the target", csv("a,name\n" + "\n".join(f"{i},n{i}" for i in range(20))), "a.csv",
     "a.csv: target column 'name' must hold classes or numbers, got 20 different texts in 20 rows",
     "'label'"),
    ("binary CSV", raw("a.csv", b"\xff\xfe\x00\x01"), "a.csv", "a.csv: it cannot be read as CSV: ",
     "--data"),
    ("unknown class in validation", csvs(train="a,y\n1,r\n2,s\n3,r\n4,s\n", val="a,y\n1,t\n"), "",
     "val.csv: classes must be those of the training data, got 't' as well", "same classes"),
    ("several CSV files", csvs(one="a,y\n1,0\n", two="a,y\n1,0\n"), "",
     "one CSV file for each split is needed, got one.csv, two.csv", "train.csv"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "path", "message", "hint"), [pytest.param(*case[1:], id=case[0]) for case in CASES]
)
def test_bad_data(tmp_path: Path, make: Make, path: str, message: str, hint: str) -> None:
    make(tmp_path)
    with pytest.raises(DataError) as caught:
        read(tmp_path / path)
    assert message in caught.value.message
    assert "\n" not in caught.value.message
    assert hint.format(root=tmp_path) in (caught.value.hint or "")
    assert caught.value.exit_code == 2


GOOD_IMAGES = folder("a", "b")
GOOD_ROWS = csv(f"a,b,label\n{ROWS}\n")

FLAGS = [
    ("two means", GOOD_IMAGES, {"mean": (0.5, 0.5)}, None,
     "--mean: 1 or 3 numbers needed (3 channels), got 2", "one for each channel"),
    ("two stds for grey", folder("a", "b", mode="L"), {"std": (0.5, 0.5)}, None,
     "--std: 1 number needed (1 channel), got 2", "one for each channel"),
    ("three stds for two columns", GOOD_ROWS, {"std": (1.0, 1.0, 1.0)}, None,
     "--std: 1 or 2 numbers needed (2 features), got 3", "one for each feature"),
    ("std of zero", GOOD_IMAGES, {"std": (0.5, 0.0, 0.5)}, None, "--std: must be above 0, got 0",
     "--std 0.5"),
    ("mean of bytes", GOOD_IMAGES, {"mean": (123.7, 116.3, 103.5)}, None,
     "--mean: applies to pixels scaled to 0-1, got 123.7", "divide --mean and --std by 255"),
    ("size of zero", GOOD_IMAGES, {"image_size": 0}, None,
     "--image-size: must be at least 1, got 0", "--image-size 224"),
    ("size against the model", GOOD_IMAGES, {"image_size": 64}, (3, 32, 32),
     "--image-size: must be the model's input size 32x32, got 64", "--input-shape 1,3,64,64"),
    ("five channels", GOOD_IMAGES, {}, (5, 32, 32),
     "images have 1 or 3 channels, the model takes 5x32x32", "--input-shape"),
    ("flat model, wrong size", GOOD_IMAGES, {}, (100,),
     "examples must have the model's input shape 100 values, got 3x6x8", "--input-shape"),
    ("too few columns", GOOD_ROWS, {}, (10,),
     "a.csv: examples must have the model's input shape 10 values, got 2 values", "--input-shape"),
    ("columns for an image model", GOOD_ROWS, {}, (3, 32, 32),
     "a.csv: examples must have the model's input shape 3x32x32, got 2 values", "--data"),
    ("floats of another shape", npz(x=np.zeros((20, 3, 4, 6)), y=Y), {}, (3, 6, 4),
     "a.npz: examples must have the model's input shape 3x6x4, got 3x4x6", "--data"),
    ("one sample", GOOD_ROWS, {"max_samples": 1}, None,
     "--max-samples: at least 2 are needed, got 1", "--max-samples 1000"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "flags", "shape", "message", "hint"),
    [pytest.param(*case[1:], id=case[0]) for case in FLAGS],
)
def test_flags_that_do_not_fit(
    tmp_path: Path,
    make: Make,
    flags: dict[str, object],
    shape: tuple[int, ...] | None,
    message: str,
    hint: str,
) -> None:
    make(tmp_path)
    with pytest.raises(DataError) as caught:
        read(tmp_path, sample_shape=shape, **flags)
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")


OUTPUTS = [
    ("folders, more outputs", folder("a", "b", "c"), (2, 10),
     "got 3 classes in the data, 10 outputs"),
    ("folders, fewer outputs", folder("a", "b", "c"), (2, 2),
     "got 3 classes in the data, 2 outputs"),
    ("label beyond", npz(x=X, y=np.arange(20) % 12), (2, 10),
     "got 12 classes in the data, 10 outputs (the largest label is 11)"),
    ("map of outputs", npz(x=X, y=Y), (2, 2, 8, 8),
     "one label for each example needs outputs (batch, classes), got (batch, 2, 8, 8)"),
    ("regression, more outputs", npz(x=X, y=Y * 0.5), (2, 10),
     "regression targets must match the model's outputs, got 1 in the data, 10 from the model"),
    ("regression, fewer outputs", npz(x=X, y=X + 1), (2, 1), "got 3 in the data, 1 from the model"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "outputs", "message"), [pytest.param(*case[1:], id=case[0]) for case in OUTPUTS]
)
def test_outputs_that_do_not_fit(
    tmp_path: Path, make: Make, outputs: tuple[int, ...], message: str
) -> None:
    make(tmp_path)
    data = read(tmp_path)
    with pytest.raises(DataError) as caught:
        check(data, outputs)
    assert message in caught.value.message
    assert "--data" in (caught.value.hint or "")


def test_outputs_that_fit(tmp_path: Path) -> None:
    check(read(image_folder(tmp_path, ["a", "b", "c"], 4)), (7, 3))
