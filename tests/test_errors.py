"""How somebody else's error becomes part of one line."""

import pytest

from prunecli.errors import LONGEST, first_line, with_type


@pytest.mark.parametrize(
    ("error", "line", "typed"),
    [
        (ValueError("no"), "no", "ValueError: no"),
        (ValueError("\n one\ntwo"), "one", "ValueError: one"),
        (KeyError("a"), "'a'", "KeyError: 'a'"),
        (EOFError(), "EOFError", "EOFError"),
        (OSError(" \n"), "OSError", "OSError"),
        (RuntimeError("x" * 999), "x" * LONGEST, "RuntimeError: " + "x" * LONGEST),
    ],
)
def test_one_line(error: BaseException, line: str, typed: str) -> None:
    assert (first_line(error), with_type(error)) == (line, typed)
