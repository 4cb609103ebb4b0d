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
from prunecli.selection.fates import Fate, Fates

PLAN_VERSION = 2

Tensors = Mapping[str, Mapping[int, tuple[int, ...]]]
"""Tensor -> axis -> kept indices, of axes that lose something."""


@dataclass(frozen=True)
class PlanGroup:
    """What happens to one group.

    Attributes:
        name, kind: as in the coupling.
        layers: modules and raw parameters the group runs through.
        kept, total: units.
        threshold: the score at or below which units were to go, `None` where nothing was.
        scores: of every unit, on the scale on which they were compared.
        fates: why each went or stayed, see `Fate`.
    """

    name: str
    kind: str
    layers: tuple[str, ...]
    kept: int
    total: int
    threshold: float | None
    scores: tuple[float, ...]
    fates: Fates

    @property
    def score_low(self) -> float:
        """The lowest score."""
        return min(self.scores)

    @property
    def score_high(self) -> float:
        """The highest score."""
        return max(self.scores)


@dataclass(frozen=True)
class Plan:
    """What stays.

    Attributes:
        criterion, target, seed: how it was chosen.
        compared: which scores were compared, and with which.
        before, after: cost of the original and of what stays.
        groups: per group, for people.
        tensors: tensor -> axis -> kept original indices; for an axis that restarts per block,
            indices count through all blocks.
    """

    criterion: str
    target: str
    compared: str
    seed: int
    before: Cost
    after: Cost
    groups: tuple[PlanGroup, ...]
    tensors: Tensors

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
            record["compared"],
            record["seed"],
            Cost(**record["before"]),
            Cost(**record["after"]),
            tuple(_group_from(group) for group in record["groups"]),
            {
                name: {int(axis): tuple(kept) for axis, kept in axes.items()}
                for name, axes in record["tensors"].items()
            },
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"plan: cannot be read: {error}", "give a .plan.json file") from error


def _group_from(record: dict[str, Any]) -> PlanGroup:
    return PlanGroup(
        **{
            **record,
            "layers": tuple(record["layers"]),
            "scores": tuple(record["scores"]),
            "fates": tuple((Fate(fate), tuple(places)) for fate, places in record["fates"]),
        }
    )


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
    # Of a wider network with the same layers, the plan's indices would be a part.
    sizes = [(group.name, group.total) for group in plan.groups]
    if sizes != [(group.name, group.units.size) for group in coupling.groups]:
        raise _does_not_fit()
    return units_of(plan.tensors, coupling)


def units_of(tensors: Tensors, coupling: Coupling) -> Keep:
    """Which units stay where these indices do, shape (units,).

    Raises:
        ConfigError: no choice of whole units leaves these.
    """
    keep = np.ones(coupling.count, dtype=np.bool_)
    for slot in coupling.slots:
        kept = tensors.get(slot.tensor, {}).get(slot.axis)
        if kept is not None:
            gone = ~np.isin(np.arange(slot.units.size), kept)
            keep[slot.units[gone & (slot.units != STAYS)]] = False
    empty = any(not keep[slot.units[slot.units != STAYS]].any() for slot in coupling.slots)
    wanted = {name: dict(axes) for name, axes in tensors.items()}
    if empty or wanted != kept_indices(coupling, keep):
        raise _does_not_fit()
    return keep


def _does_not_fit() -> ConfigError:
    return ConfigError(
        "plan: does not fit this network", "use the plan with the checkpoint it was made for"
    )
