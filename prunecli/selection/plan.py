"""The plan: which original indices of which axis stay. Frozen, readable, replayable.

Stage: selection. In and out: JSON. Touches no weights.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from prunecli.errors import ConfigError
from prunecli.graph.cost import Cost, Keep
from prunecli.graph.coupling import STAYS, Coupling

PLAN_VERSION = 1


@dataclass(frozen=True)
class PlanGroup:
    """What happens to one group.

    Attributes:
        name, kind: as in the coupling.
        layers: modules and raw parameters the group runs through.
        kept, total: units.
        score_low, score_high: over all units of the group, 1 being its largest.
    """

    name: str
    kind: str
    layers: tuple[str, ...]
    kept: int
    total: int
    score_low: float
    score_high: float


@dataclass(frozen=True)
class Plan:
    """What stays.

    Attributes:
        criterion, target, seed: how it was chosen.
        before, after: cost of the original and of what stays.
        groups: per group, for people.
        tensors: tensor -> axis -> kept original indices; for an axis that restarts per block,
            indices count through all blocks.
    """

    criterion: str
    target: str
    seed: int
    before: Cost
    after: Cost
    groups: tuple[PlanGroup, ...]
    tensors: Mapping[str, Mapping[int, tuple[int, ...]]]

    def to_json(self) -> str:
        """The plan as text, the same for the same plan byte for byte."""
        record: dict[str, Any] = {"version": PLAN_VERSION, **asdict(self)}
        record["tensors"] = {
            name: {str(axis): list(kept) for axis, kept in axes.items()}
            for name, axes in self.tensors.items()
        }
        return json.dumps(record, indent=1, sort_keys=True) + "\n"


def plan_from_json(text: str) -> Plan:
    """Read a plan back.

    Raises:
        ConfigError: not a plan, or one of another version.
    """
    try:
        record = json.loads(text)
        version = record.pop("version")
        if version != PLAN_VERSION:
            raise ConfigError(
                f"plan: version {PLAN_VERSION} is needed, got {version}",
                "make it again with this version of prunecli",
            )
        return Plan(
            record["criterion"],
            record["target"],
            record["seed"],
            Cost(**record["before"]),
            Cost(**record["after"]),
            tuple(
                PlanGroup(**{**group, "layers": tuple(group["layers"])})
                for group in record["groups"]
            ),
            {
                name: {int(axis): tuple(kept) for axis, kept in axes.items()}
                for name, axes in record["tensors"].items()
            },
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"plan: cannot be read: {error}", "give a .plan.json file") from error


def kept_indices(coupling: Coupling, keep: Keep) -> dict[str, dict[int, tuple[int, ...]]]:
    """What stays of every axis that loses something."""
    kept = np.append(keep, True)
    found: dict[str, dict[int, tuple[int, ...]]] = {}
    for slot in coupling.slots:
        stays = kept[slot.units]
        if not stays.all():
            found.setdefault(slot.tensor, {})[slot.axis] = tuple(np.flatnonzero(stays).tolist())
    return found


def kept_units(plan: Plan, coupling: Coupling) -> Keep:
    """Which units a plan keeps, shape (units,).

    Raises:
        ConfigError: the plan was made for another network.
    """
    keep = np.ones(coupling.count, dtype=np.bool_)
    for slot in coupling.slots:
        kept = plan.tensors.get(slot.tensor, {}).get(slot.axis)
        if kept is not None:
            gone = ~np.isin(np.arange(slot.units.size), kept)
            keep[slot.units[gone & (slot.units != STAYS)]] = False
    # Of a wider network with the same layers, the plan's indices would be a part.
    sizes = [(group.name, group.total) for group in plan.groups]
    same = sizes == [(group.name, group.units.size) for group in coupling.groups]
    empty = any(not keep[slot.units[slot.units != STAYS]].any() for slot in coupling.slots)
    wanted = {name: dict(axes) for name, axes in plan.tensors.items()}
    if not same or empty or wanted != kept_indices(coupling, keep):
        raise ConfigError(
            "plan: does not fit this network", "use the plan with the checkpoint it was made for"
        )
    return keep
