"""A report as JSON, for machines.

Stage: report. In: a report. Out: text with a schema version and keys in a fixed order. Never emits
NaN or infinity, which are not JSON: such a value becomes null and its place is listed.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from prunecli.report.inspection import Inspection
from prunecli.report.record import SCHEMA_VERSION, Report


def to_json(report: Report | Inspection) -> str:
    """The report as indented JSON.

    Keys stand in the order of the records' fields. `not_finite` lists the paths, such as
    `training[0].train_loss`, of values that were NaN or infinite and are null here.
    """
    lost: list[str] = []
    body = _finite(asdict(report), "", lost)
    document = {"schema_version": SCHEMA_VERSION, **body, "not_finite": lost}
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _finite(value: Any, path: str, lost: list[str]) -> Any:
    if isinstance(value, Mapping):
        prefix = f"{path}." if path else ""
        return {key: _finite(part, f"{prefix}{key}", lost) for key, part in value.items()}
    if isinstance(value, tuple | list):
        return [_finite(part, f"{path}[{index}]", lost) for index, part in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        lost.append(path)
        return None
    return value
