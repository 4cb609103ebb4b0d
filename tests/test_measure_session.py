"""Opening ONNX files, feeding them, and their size; files are built by hand, without torch."""

import gzip
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from prunecli.errors import ModelError
from prunecli.measure.session import Array, RuntimeInput, fit_batch, open_session, predict
from prunecli.measure.size import FileSize, file_size

WEIGHT = np.array([[1.0, -1.0], [2.0, 0.5], [0.0, 3.0]], dtype=np.float32)


def write_linear(path: Path, batch: int | str) -> Path:
    """y = x @ WEIGHT, for x of shape (batch, 3); a string is a dynamic batch."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 2])],
        [numpy_helper.from_array(WEIGHT, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, path)
    return path


def examples(count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 3)).astype(np.float32)


def test_session_knows_its_input_and_computes(tmp_path: Path) -> None:
    session = open_session(write_linear(tmp_path / "m.onnx", "batch"), threads=1)
    assert session.inputs == (RuntimeInput("x", ("batch", 3)),)
    assert session.batch_size is None
    x = examples(5)
    np.testing.assert_allclose(session.run((x,))[0], x @ WEIGHT, rtol=1e-6)


def test_session_options(tmp_path: Path) -> None:
    options = open_session(
        write_linear(tmp_path / "m.onnx", "batch"), threads=2
    ).runtime.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (2, 1)
    assert options.get_session_config_entry("session.force_spinning_stop") == "1"


@pytest.mark.parametrize("count", [1, 3, 4, 5, 8, 11])
def test_predict_hides_a_fixed_batch(tmp_path: Path, count: int) -> None:
    session = open_session(write_linear(tmp_path / "m.onnx", 4), threads=1)
    assert session.batch_size == 4
    x = examples(count)
    (outputs,) = predict(session, (x,))
    assert outputs.shape == (count, 2)
    np.testing.assert_allclose(outputs, x @ WEIGHT, rtol=1e-6)


class AuxiliaryLoss:
    """Answers batches of 4 with their rows and one number."""

    batch_size = 4

    def fit(self, examples: Sequence[Array], size: int) -> tuple[Array, ...]:
        return tuple(examples)

    def run(self, batch: Sequence[Array]) -> tuple[Array, ...]:
        return batch[0], np.float32(batch[0].sum()), np.zeros(3)


@pytest.mark.parametrize("count", [3, 4, 9])
def test_outputs_without_examples_stay_as_they_are(count: int) -> None:
    x = np.arange(count)
    rows, number, three = predict(AuxiliaryLoss(), (x,))
    assert rows.tolist() == x.tolist()
    assert (number.shape, three.shape) == ((), (3,))


def test_fit_batch_cuts_and_repeats() -> None:
    x = np.arange(3)
    assert fit_batch(x, 2).tolist() == [0, 1]
    assert fit_batch(x, 3) is x
    assert fit_batch(x, 7).tolist() == [0, 1, 2, 0, 1, 2, 0]


def test_wrong_shape_is_one_line_with_a_hint(tmp_path: Path) -> None:
    session = open_session(write_linear(tmp_path / "m.onnx", "batch"), threads=1)
    with pytest.raises(
        ModelError, match=r"m\.onnx: must run on input of shape \(2, 4\), got: .+"
    ) as failure:
        session.run((np.zeros((2, 4), dtype=np.float32),))
    assert "\n" not in failure.value.message
    assert failure.value.hint == "check --input-shape"


@pytest.mark.parametrize("content", [None, b"", b"<html>not a model</html>"])
def test_files_that_do_not_load(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "bad.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=r"bad\.onnx: onnxruntime must load it, got: .+"):
        open_session(path, threads=1)


def test_only_inputs_with_a_batch_are_fitted_to_it(tmp_path: Path) -> None:
    shapes: dict[str, list[str | int]] = {"a": ["length", 3], "b": ["batch", 1, 3]}
    graph = helper.make_graph(
        [helper.make_node("Add", ["a", "b"], ["y"])],
        "two",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "length", 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, tmp_path / "two.onnx")
    session = open_session(tmp_path / "two.onnx", threads=1)
    assert session.batch_size is None
    a, b = np.ones((5, 3), dtype=np.float32), np.full((2, 1, 3), 2, dtype=np.float32)
    fitted = session.fit((a, b), 4)
    assert [array.shape for array in fitted] == [(5, 3), (4, 1, 3)]
    assert session.run(fitted)[0].shape == (4, 5, 3)


def test_size_is_that_of_the_bytes_and_of_their_gzip(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = rng.bytes(1_500_000)
    words = b" ".join(rng.choice([b"prune", b"train", b"export", b"verify", b"ship"], 50_000))
    content = noise + bytes(2_000_000) + words  # several blocks, some of which shrink
    path = tmp_path / "file.bin"
    path.write_bytes(content)
    found = file_size(path)
    assert found == FileSize(len(content), len(gzip.compress(content, 9)))
    assert len(noise) < found.compressed_bytes < len(noise) + len(words)


def test_size_of_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.touch()
    assert file_size(path) == FileSize(0, len(gzip.compress(b"", 9)))
