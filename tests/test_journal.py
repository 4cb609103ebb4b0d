"""The journal: what was done is read, what was not is done, and nobody else's files are touched."""

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from prunecli.config import DataConfig, ModelConfig, RunConfig
from prunecli.errors import ConfigError, DataError, OutputError, StateError, TrainingError
from prunecli.pipeline.journal import Journal, cleared, is_unfinished, journal_in
from prunecli.pipeline.starts import Command, Start, read_start, start_to_json
from prunecli.pipeline.statefile import read_state, write_state
from prunecli.progress import SilentReporter
from prunecli.records import from_plain, to_plain
from prunecli.removal import Removal

START = Start(
    Command.PRUNE,
    to_plain(RunConfig(ModelConfig(Path("a.pt2")), Removal(), data=DataConfig(Path("data")))),
    "/somewhere",
    "checkpoint",
    "",
    "network",
    "data",
    {"torch": "2.13"},
)


class Heard(SilentReporter):
    """Keeps warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = tmp_path / "net.run" / "state"
    folder.parent.mkdir()
    return folder


def begun(state: Path, *, again: bool = False, start: Start = START) -> Journal:
    state.mkdir(exist_ok=True)
    journal = Journal(state, again=again)
    journal.begin(start, SilentReporter())
    return journal


def number(journal: Journal, kind: str, make: Callable[[], int]) -> int:
    return journal.once(kind, make, lambda made: {"made": made}, lambda values: values["made"])


def never() -> int:
    raise AssertionError("this was done before")


def test_what_was_done_is_read_and_the_rest_is_done(state: Path) -> None:
    journal = begun(state)
    assert [number(journal, "one", lambda: 1), number(journal, "two", lambda: 2)] == [1, 2]
    again = begun(state, again=True)
    assert [number(again, "one", never), number(again, "two", never)] == [1, 2]
    assert number(again, "two", lambda: 3) == 3, "the third call, whatever its kind"
    assert [path.name for path in sorted(state.glob("*.pt"))] == [
        *("0001-one.pt", "0002-two.pt", "0003-two.pt")
    ]


def test_without_a_folder_everything_is_done_and_nothing_kept() -> None:
    journal = Journal()
    assert [number(journal, "one", lambda: 1), number(journal, "one", lambda: 2)] == [1, 2]
    assert journal.training() is None
    assert not journal.begun


def test_what_failed_is_not_written_down(state: Path) -> None:
    journal = begun(state)

    def fails() -> int:
        raise DataError("no data")

    with pytest.raises(DataError):
        number(journal, "one", fails)
    assert list(state.glob("*.pt")) == []


def test_changed_weights_return_bit_for_bit(state: Path) -> None:
    def network() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3))

    def change(changed: nn.Module) -> str:
        with torch.no_grad():
            for item in (*changed.parameters(), *changed.buffers()):
                item.add_(1)
        return "changed"

    first, second = network(), network()
    assert begun(state).change("recovery", first, lambda: change(first)) == "changed"
    again = begun(state, again=True)
    assert again.change("recovery", second, lambda: change(nn.Identity())) == "changed"
    for name, item in first.state_dict().items():
        assert torch.equal(second.state_dict()[name], item), name
    with pytest.raises(StateError, match=r"state .*0001-recovery.pt: is damaged"):
        begun(state, again=True).change("recovery", nn.Linear(2, 2), lambda: "changed")


def test_another_order_of_calls_is_refused(state: Path) -> None:
    number(begun(state), "one", lambda: 1)
    with pytest.raises(StateError, match=r"0001-one.pt: two is done here, got another file"):
        number(begun(state, again=True), "two", never)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"sha256": "x"}, "the checkpoint must be the one that the run began with"),
        ({"source": "x"}, "the run must be the one that the run began with"),
        ({"network": "x"}, "the model must be the one that the run began with"),
        ({"data": "x"}, "the data must be the one that the run began with"),
        ({"task": "x"}, "the task must be the one that the run began with"),
    ],
)
def test_another_start_is_refused(changed: dict[str, str], said: str, state: Path) -> None:
    begun(state)
    with pytest.raises(StateError, match=said):
        begun(state, again=True, start=replace(START, **changed))


def test_another_version_of_pytorch_is_a_warning(state: Path) -> None:
    begun(state)
    heard = Heard()
    now = replace(START, made_with={"torch": "2.14", "threads": "1"})
    Journal(state, again=True).begin(now, heard)
    assert heard.warnings == [
        "torch was 2.13 and is 2.14: the last digits may differ from those of an unbroken run"
    ]


def test_a_start_survives_the_file(state: Path) -> None:
    begun(state)
    assert read_start(state) == START
    assert from_plain(RunConfig, read_start(state).config).data == DataConfig(Path("data"))
    assert (state / "start.json").read_text() == start_to_json(START)


def test_a_write_that_fails_leaves_what_was_there(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = begun(state)
    entry = journal.training()
    assert entry is not None
    assert entry.load() is None
    entry.save({"epoch": 1})

    def interrupted(values: object, stream: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            entry.save({"epoch": 2})
    assert entry.load() == {"epoch": 1}
    assert sorted(path.name for path in state.iterdir()) == ["0001-training.pt", "start.json"]


def test_tensors_keep_values_types_and_layout(tmp_path: Path) -> None:
    image = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    values = {"image": image, "flags": torch.tensor([True]), "none": None, "list": [1, 2.5, "x"]}
    write_state(tmp_path / "a.pt", values)
    found = read_state(tmp_path / "a.pt")
    assert list(found) == list(values)
    assert torch.equal(found["image"], image)
    assert found["image"].stride() == image.stride()
    assert (found["flags"].dtype, found["none"], found["list"]) == (torch.bool, None, [1, 2.5, "x"])


@pytest.mark.parametrize("content", [b"", b"PK", b"no zip at all", [1], Tensor])
def test_what_is_no_state_is_refused(content: object, tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(StateError, match=r"state .*a.pt: is damaged"):
        read_state(path)


def ends(
    state: Path, error: BaseException | None, *, keep: bool = False, begin: bool = True
) -> list[str]:
    """What a run that ends so leaves; the notes on the error."""
    with (
        contextlib.nullcontext() if error is None else pytest.raises(type(error)),
        journal_in(state, SilentReporter(), keep=keep, again=False) as journal,
    ):
        if begin:
            journal.begin(START, SilentReporter())
            number(journal, "one", lambda: 1)
        if error is not None:
            raise error
    return list(getattr(error, "__notes__", []))


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), ZeroDivisionError("a bug"), OutputError("the disk is full")]
)
def test_what_can_be_gone_on_from_stays(error: BaseException, state: Path) -> None:
    [note] = ends(state, error)
    assert note == f"to go on: prunecli resume {state.parent}"
    assert is_unfinished(state)
    assert (state / "0001-one.pt").is_file()


@pytest.mark.parametrize("error", [TrainingError("nan"), ConfigError("no such layer"), None])
def test_nothing_stays_of_a_good_end_or_of_one_that_would_come_again(
    error: BaseException | None, state: Path
) -> None:
    assert ends(state, error) == []
    assert not state.exists()


def test_what_does_not_fit_the_memory_now_may_fit_later(state: Path) -> None:
    error = ConfigError("a batch of 32 does not fit the memory of cuda:0")
    error.__cause__ = torch.OutOfMemoryError()
    assert ends(state, error) == [f"to go on: prunecli resume {state.parent}"]
    assert is_unfinished(state)


def test_a_run_that_never_began_leaves_nothing(state: Path) -> None:
    assert ends(state, KeyboardInterrupt(), begin=False) == []
    assert not state.exists()


def test_a_kept_run_is_not_unfinished(state: Path) -> None:
    ends(state, None, keep=True)
    assert (state / "0001-one.pt").is_file()
    assert not is_unfinished(state)


def test_one_at_a_time(state: Path) -> None:
    with journal_in(state, SilentReporter(), keep=False, again=False):
        with (
            pytest.raises(StateError, match="another process is working on it"),
            journal_in(state, SilentReporter(), keep=False, again=True),
        ):
            pass
        assert (state / "lock").exists()


def test_what_a_killed_process_had_half_written_goes(state: Path) -> None:
    """With `keep`, too, where nothing else goes at the end."""
    number(begun(state), "one", lambda: 1)
    (state / ".0002-training.123.tmp.pt").write_text("half")
    with journal_in(state, SilentReporter(), keep=True, again=True) as journal:
        journal.begin(START, SilentReporter())
    assert sorted(item.name for item in state.iterdir()) == [
        *("0001-one.pt", "ended", "lock", "start.json")
    ]


def test_halves_of_what_it_writes_go_too(state: Path) -> None:
    beside = state.parent
    for name in (".net.77.tmp.json", ".net.77.probe.json", ".other.77.tmp.json", ".net.x.tmp.json"):
        (beside / name).write_text("half")
    finals = [beside / "net.json"]
    with journal_in(state, SilentReporter(), keep=True, again=False, finals=finals):
        left = {item.name for item in beside.iterdir() if item.is_file()}
    assert left == {".other.77.tmp.json", ".net.x.tmp.json"}


def test_files_of_others_are_left_alone(state: Path) -> None:
    begun(state)
    others = [state / "notes.txt", state / "model.pt", state / "folder"]
    others[0].write_text("mine")
    others[1].write_text("mine")
    others[2].mkdir()
    (state / ".0002-training.123.tmp.pt").write_text("half")
    cleared(state)
    assert sorted(state.iterdir()) == sorted(others)


def test_workspaces_of_killed_runs_go(state: Path) -> None:
    left = state.parent / ".prunecli-abc"
    left.mkdir()
    (left / "original.onnx").write_text("half")
    ends(state, None)
    assert list(state.parent.iterdir()) == []
