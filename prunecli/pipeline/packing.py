"""Plans as plain values, for a run that may have to go on in another process.

Stage: pipeline. In: a plan. Out: texts and tensors, and the same plan again.
"""

import json
from collections.abc import Mapping
from typing import Any

import torch

from prunecli.importance.scores import Scores
from prunecli.measure.score import Score
from prunecli.records import from_plain, to_plain
from prunecli.selection.maskplan import MaskPlan, MaskRow
from prunecli.selection.plan import Plan, plan_from_json

Packed = Mapping[str, Any]


def pack_units(plan: Plan) -> Packed:
    """A plan of whole units."""
    return {"plan": plan.to_json()}


def unpack_units(packed: Packed) -> Plan:
    """The same plan."""
    return plan_from_json(packed["plan"])


def pack_scores(scores: Scores) -> Packed:
    """What layers are judged by; from it follows which of them go."""
    return {"scores": torch.from_numpy(scores.copy())}


def unpack_scores(packed: Packed) -> Scores:
    """The same scores."""
    found: Scores = packed["scores"].numpy()
    return found


def pack_masks(plan: MaskPlan) -> Packed:
    """Masks, and what decided."""
    return {"masks": dict(plan.masks), "rows": json.dumps([to_plain(row) for row in plan.rows])}


def unpack_masks(packed: Packed) -> MaskPlan:
    """The same masks."""
    rows = json.loads(packed["rows"])
    return MaskPlan(dict(packed["masks"]), tuple(from_plain(MaskRow, row) for row in rows))


def pack_score(score: Score) -> Packed:
    """What a file scores."""
    return {"score": json.dumps(to_plain(score))}


def unpack_score(packed: Packed) -> Score:
    """The same score."""
    return from_plain(Score, json.loads(packed["score"]))


def pack_number(number: float) -> Packed:
    """A score."""
    return {"number": number}


def unpack_number(packed: Packed) -> float:
    """The same score."""
    return float(packed["number"])
