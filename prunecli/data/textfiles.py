"""Plain text files, for language modelling.

Stage: data. In: a file, or files named after splits. Out: a source, through `texts`. Never opens
anything but UTF-8.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from prunecli.choices import TaskName
from prunecli.data.source import Role, Source, by_role, judged_by, listed
from prunecli.data.texts import from_language
from prunecli.data.tokens import load_tokenizer
from prunecli.data.wanted import Wanted, refuse_idle
from prunecli.errors import DataError

_TASKS = (TaskName.LANGUAGE_MODELLING, TaskName.MASKED_LANGUAGE_MODELLING, TaskName.MATCH)


def read_texts(path: Path, files: Sequence[Path], wanted: Wanted) -> Source:
    """All files of each split, one after another.

    Raises:
        DataError: the task needs more than text, there is no tokenizer, or a file is no text.
    """
    name = None if wanted.task is None else wanted.task.name
    if name not in _TASKS:
        got = "no --task" if wanted.task is None else f"--task {wanted.task.in_words()}"
        raise DataError(
            f"data {path}: plain text has no labels, got {got}",
            "say --task language-modelling, or write texts and labels as CSV or JSON lines",
        )
    flags = ("--target-column", "--input-column", "--image-size")
    refuse_idle(wanted.config, "plain text", *flags)
    roles, rest = by_role(files, path)
    kept = [role for role in Role if role in judged_by(roles)]
    tokenizer = load_tokenizer(wanted, f"data {path}")
    texts = {}
    for role in kept:
        own = roles[role]
        where = own[0].name if len(own) == 1 else f"{path.name} ({role.value})"
        texts[role] = (where, [line for file in own for line in _lines(file)])
    source = from_language(texts, wanted, tokenizer, f"{listed(f.name for f in files)}", rows=False)
    unused = [f"not named after a split and not used: {listed(f.name for f in rest)}"]
    return replace(source, notes=(*source.notes, *(unused if rest else [])))


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8-sig").splitlines(keepends=True)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"data {file}: it cannot be read as text: {error}", "UTF-8 is understood"
        ) from error
