"""Refusing `.pt2` archives that could run code when torch loads or runs them.

Stage: loading. In: an opened archive. Out: nothing, or a `CheckpointError` that says what was
found. Never loads the program, never unpickles with more than `weights_only=True`.

torch.export.load unpickles freely in six places (pickled weights, pickled constants, custom and
opaque objects, both legacy weight files, sample inputs), loads compiled libraries, and turns
strings into code (see `pt2_text`). torch.export.save needs none of these for a plain network,
so an archive that has one is refused unless the user allows pickles. The checks read through the
same reader as the loader does, so both see the same bytes.
"""

import io
import json
import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch.export.pt2_archive import PT2ArchiveReader

from prunecli.errors import CheckpointError
from prunecli.loading.pt2_text import (
    SuspiciousText,
    check_expression,
    check_free,
    check_guard,
    check_identifier,
    check_plain,
    check_target,
    check_tree,
)

MODEL = "models/model.json"
SAMPLE_INPUTS = "data/sample_inputs/model.pt"
WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"
RECORD = re.compile(
    r"models/model\.json|data/sample_inputs/model\.pt|extra/.+"
    r"|data/weights/(weight_\d+|model_weights_config\.json)"
    r"|data/constants/(tensor_\d+|model_constants_config\.json)"
    r"|archive_format|archive_version|\.format_version|byteorder|version"
    r"|\.data/(version|serialization_id)|\.storage_alignment"
)
"""Everything torch.export.save writes for a network of tensors."""

TRUST_HINT = "if you trust the file, add --allow-pickle: it can then run any code it holds"

TEXT_RULES: Mapping[str, Callable[[object], None]] = {
    "name": check_identifier,
    "as_name": check_identifier,
    "forward_arg_names": check_identifier,
    "target": check_target,
    "as_operator": check_target,
    "expr_str": check_expression,
    "guards_code": check_guard,
    "in_spec": check_tree,
    "out_spec": check_tree,
}
"""Rule for a string by the key it stands under; all others must be plain."""

OPTIONAL_NAMES = frozenset({"name", "as_name"})
"""Constant inputs carry an empty name."""


def check_archive(path: Path, reader: PT2ArchiveReader) -> None:
    """Refuse everything that torch.export.save does not write for a plain network.

    Raises:
        CheckpointError: something in the archive could run code.
    """
    names = reader.get_file_names()
    for name in names:
        if RECORD.fullmatch(name) is None:
            raise _refused(path, f"the record {name!r}")
    try:
        _check_payloads(reader, WEIGHTS, "weight_")
        _check_payloads(reader, CONSTANTS, "tensor_")
        _check_sample_inputs(reader)
        _check_json(json.loads(reader.read_string(MODEL)), "", in_node=False)
    except SuspiciousText as error:
        raise _refused(path, str(error)) from error


def _refused(path: Path, got: str) -> CheckpointError:
    return CheckpointError(
        f"checkpoint {path}: must hold only tensors and tensor operators, got {got}", TRUST_HINT
    )


def _check_payloads(reader: PT2ArchiveReader, record: str, prefix: str) -> None:
    for name, payload in json.loads(reader.read_string(record))["config"].items():
        if payload["use_pickle"] is not False:
            raise SuspiciousText(f"the pickled object {name!r}")
        file_name = payload["path_name"]
        if not isinstance(file_name, str) or re.fullmatch(prefix + r"\d+", file_name) is None:
            raise SuspiciousText(f"the stored object {file_name!r}")
        check_plain(name)


def _check_sample_inputs(reader: PT2ArchiveReader) -> None:
    data = reader.read_bytes(SAMPLE_INPUTS)
    if not data:
        return
    try:
        # The very call that the loader makes first; it unpickles freely only when this fails.
        inputs = torch.load(io.BytesIO(data), weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError) as error:
        raise SuspiciousText("sample inputs that are not plain tensors") from error
    _check_sample(inputs)


def _check_sample(value: object) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, int):
                check_plain(key)
            _check_sample(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            _check_sample(inner)
    elif isinstance(value, str):
        check_plain(value)
    elif value is not None and not isinstance(value, torch.Tensor | int | float | complex):
        raise SuspiciousText(f"a sample input of type {type(value).__name__}")


def _check_json(value: object, key: str, *, in_node: bool) -> None:
    """Walk the serialised program.

    Args:
        value: the part to check.
        key: the dictionary key it stands under; lists hand theirs on.
        in_node: below a graph's nodes, where string arguments go to an operator as they are;
            elsewhere torch writes them into source code.
    """
    if isinstance(value, dict):
        for name, inner in value.items():
            if key == "metadata":
                check_free(name)
                check_free(inner)
                continue
            # Ranges are kept by symbol or by expression, e.g. `4*s39`.
            (check_expression if key == "range_constraints" else check_plain)(name)
            _check_json(inner, name, in_node=in_node or name == "nodes")
    elif isinstance(value, list):
        for inner in value:
            _check_json(inner, key, in_node=in_node)
    elif isinstance(value, str):
        if key in ("as_string", "as_strings") and in_node:
            check_free(value)
        elif value or key not in OPTIONAL_NAMES:
            TEXT_RULES.get(key, check_plain)(value)
