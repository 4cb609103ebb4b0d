"""One bench and one good run for all tests of the command line; both are only read."""

from pathlib import Path

import pytest
from cli_making import Bench, Good, make_bench, run


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return make_bench(tmp_path_factory.mktemp("bench"))


@pytest.fixture(scope="session")
def good(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Good:
    """The usual run, with a report."""
    folder = tmp_path_factory.mktemp("good")
    onnx = folder / "new" / "net.onnx"
    ended = run("prune", *bench.usual, "-o", onnx, "--report", onnx.with_suffix(".json"))
    return Good(ended, onnx)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder
