"""Files get their names only when they are whole, and failures leave nothing behind."""

import hashlib
from pathlib import Path

import pytest

from prunecli.errors import OutputError
from prunecli.files import (
    ELSEWHERE,
    atomic_path,
    check_writable,
    folders_for,
    rename_together,
    sha256_of,
    workspace,
    write_text,
    writing,
)


def below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_text_is_written_whole_into_a_folder_that_did_not_exist(tmp_path: Path) -> None:
    write_text(tmp_path / "new" / "a.json", "ä")
    assert (tmp_path / "new" / "a.json").read_bytes() == "ä".encode()
    assert below(tmp_path) == ["new", "new/a.json"]


def test_failure_inside_keeps_the_old_file_and_leaves_no_other(tmp_path: Path) -> None:
    final = tmp_path / "a.json"
    final.write_text("old")

    def fail() -> None:
        with atomic_path(final) as temporary:
            assert temporary.suffix == ".json", "writers look at it"
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert below(tmp_path) == ["a.json"]
    assert final.read_text() == "old"


def test_folder_in_the_file_s_place_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.json").mkdir()
    with pytest.raises(OutputError) as caught:
        write_text(tmp_path / "a.json", "x")
    assert caught.value.message == f"{tmp_path / 'a.json'} cannot be written: Is a directory"
    assert below(tmp_path) == ["a.json"]


def test_refusal_of_the_system_becomes_one_line() -> None:
    with pytest.raises(OutputError) as caught, writing(Path("a.onnx")):
        raise OSError(28, "No space left on device")
    assert caught.value.message == "a.onnx cannot be written: No space left on device"
    assert caught.value.hint == ELSEWHERE


def test_check_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_text("old")
    check_writable(tmp_path / "a.onnx")
    check_writable(tmp_path / "b.onnx")
    assert below(tmp_path) == ["a.onnx"]
    assert (tmp_path / "a.onnx").read_text() == "old"


def test_check_refuses_a_folder(tmp_path: Path) -> None:
    with pytest.raises(OutputError) as caught:
        check_writable(tmp_path)
    assert caught.value.message == f"output {tmp_path} is a folder"


def test_check_refuses_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError) as caught:
        check_writable(tmp_path / "file" / "a.onnx")
    place = tmp_path / "file"
    assert caught.value.message == f"output folder {place} is not writable: Not a directory"


def test_folders_stay_after_a_good_block(tmp_path: Path) -> None:
    with folders_for([tmp_path / "a" / "b" / "x", tmp_path / "a" / "y"]):
        assert below(tmp_path) == ["a", "a/b"]
    assert below(tmp_path) == ["a", "a/b"]


def test_folders_made_here_go_after_a_failure_unless_something_is_in_them(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()

    def fail() -> None:
        files = [tmp_path / "old" / "x", tmp_path / "new" / "deep" / "x", tmp_path / "kept" / "x"]
        with folders_for(files):
            (tmp_path / "kept" / "report.json").touch()
            raise OutputError("no")

    with pytest.raises(OutputError):
        fail()
    assert below(tmp_path) == ["kept", "kept/report.json", "old"]


def test_folder_under_a_file_cannot_be_created(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    deep = tmp_path / "file" / "deep"
    with pytest.raises(OutputError) as caught, folders_for([tmp_path / "new" / "x", deep / "x"]):
        pytest.fail("the block must not run")
    assert caught.value.message == f"output folder {deep} cannot be created: Not a directory"
    assert below(tmp_path) == ["file"]


def test_workspace_goes_with_all_that_is_in_it(tmp_path: Path) -> None:
    with workspace(tmp_path / "a.onnx") as folder:
        assert folder.parent == tmp_path, "on the same file system, so that renaming works"
        (folder / "x").touch()
    assert below(tmp_path) == []


def test_renames_happen_together(tmp_path: Path) -> None:
    for name in ("a.tmp", "b.tmp"):
        (tmp_path / name).write_text(name)
    rename_together([(tmp_path / f"{name}.tmp", tmp_path / name) for name in "ab"])
    assert below(tmp_path) == ["a", "b"]


def test_renames_are_taken_back_when_one_fails(tmp_path: Path) -> None:
    (tmp_path / "a.tmp").touch()
    with pytest.raises(OutputError) as caught:
        rename_together([(tmp_path / f"{name}.tmp", tmp_path / name) for name in "ab"])
    wanted = f"{tmp_path / 'b'} cannot be written: No such file or directory"
    assert caught.value.message == wanted
    assert below(tmp_path) == []


def test_sha256_of_more_than_one_block(tmp_path: Path) -> None:
    content = bytes(range(256)) * 8192
    (tmp_path / "x").write_bytes(content)
    assert sha256_of(tmp_path / "x") == hashlib.sha256(content).hexdigest()
