"""Records and JSON: what comes back is what was written, and anything else is refused."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from prunecli.choices import TaskName
from prunecli.records import MALFORMED, from_plain, to_plain


@dataclass(frozen=True)
class Inner:
    share: float = 0.5
    count: int | None = None


@dataclass(frozen=True)
class Outer:
    name: str
    good: bool
    kind: TaskName
    way: Literal["up", "down"]
    path: Path | None
    inner: Inner
    pair: tuple[int, str]
    many: tuple[Inner, ...] = ()
    named: Mapping[str, float] = field(default_factory=dict)
    anything: Any = None


RECORD = Outer(
    *("a", True, TaskName.MATCH, "up", Path("b"), Inner(1, 2), (3, "c"), (Inner(), Inner(0.25))),
    named={"d": 1.5},
    anything=[1, "x"],
)


def test_there_and_back() -> None:
    assert from_plain(Outer, json.loads(json.dumps(to_plain(RECORD)))) == RECORD


def test_a_whole_number_is_a_number() -> None:
    assert from_plain(Inner, {"share": 1}) == Inner(1)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("name", 3, "str is needed, got '3'"),
        ("good", 1, "bool is needed, got '1'"),
        ("kind", "nothing", "'nothing' is not a valid TaskName"),
        ("way", "left", "must be one of up, down, got left"),
        ("path", 3, "int"),
        ("inner", [1], "Mapping is needed, got '\\[1\\]'"),
        ("inner", {"share": "abc"}, "float or int is needed, got 'abc'"),
        ("inner", {"share": True}, "float or int is needed, got 'True'"),
        ("inner", {"share": None}, "float or int is needed, got 'None'"),
        ("inner", {"count": 1.5}, "int is needed, got '1.5'"),
        ("inner", {"depth": 1}, "Inner has no depth"),
        ("pair", [1], "shorter"),
        ("pair", "1c", "list or tuple is needed"),
        ("many", {"share": 1}, "list or tuple is needed"),
        ("named", ["d"], "Mapping is needed"),
        ("named", {"d": "1"}, "float or int is needed"),
    ],
)
def test_other_values_are_refused(name: str, value: Any, said: str) -> None:
    with pytest.raises(MALFORMED, match=said):
        from_plain(Outer, {**to_plain(RECORD), name: value})
