"""What a run leaves for later: its configuration, its plans and its report, as one JSON file.

Stage: pipeline. In: a finished run, or the folder that one left. Out: text, or `Saved`. Never
touches a network.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prunecli.config import RunConfig
from prunecli.errors import ConfigError
from prunecli.pipeline.state import EmptiedPlan, Step
from prunecli.records import MALFORMED, from_plain, to_plain
from prunecli.report.record import Report
from prunecli.selection.layers import LayerPlan, layer_plan_from_json
from prunecli.selection.plan import Plan, plan_from_json

SAVED_VERSION = 1
RUN_FILE, STATE_FOLDER = "run.json", "state"


@dataclass(frozen=True)
class Saved:
    """A finished run.

    Attributes:
        sha256: of the checkpoint that was pruned.
        plans: what was removed, in order.
        masked: parameters with weights that are held at zero.
        trained: whether weights were trained on the way.
        program: the resulting `.pt2`.
    """

    config: RunConfig
    sha256: str
    plans: tuple[Step, ...]
    masked: tuple[str, ...]
    report: Report
    trained: bool
    program: Path


def plans_to_json(plans: Sequence[Step]) -> str:
    """Plans as text, the same for the same plans byte for byte."""
    steps = [{"removes": _kind(plan), "plan": _plain(plan)} for plan in plans]
    return json.dumps({"version": SAVED_VERSION, "steps": steps}, indent=1, sort_keys=True) + "\n"


def plans_from_json(text: str) -> tuple[Step, ...]:
    """Read plans back.

    Raises:
        ConfigError: not plans, or those of another version.
    """
    try:
        document = json.loads(text)
        _check_version(document)
        steps = [(step["removes"], step["plan"]) for step in document["steps"]]
    except MALFORMED as error:
        raise ConfigError(f"plan: cannot be read: {error}", "give a plan.json file") from error
    return tuple(_step(removes, plan) for removes, plan in steps)


def _plain(plan: Step) -> Any:
    if isinstance(plan, EmptiedPlan):
        return {
            name: {str(axis): list(kept) for axis, kept in axes.items()}
            for name, axes in plan.tensors.items()
        }
    return json.loads(plan.to_json())


def _step(removes: str, plan: Any) -> Step:
    if removes == "emptied":
        return EmptiedPlan(
            {
                name: {int(axis): tuple(kept) for axis, kept in axes.items()}
                for name, axes in plan.items()
            }
        )
    text = json.dumps(plan)
    return plan_from_json(text) if removes == "units" else layer_plan_from_json(text)


def _kind(plan: Step) -> str:
    kinds = {Plan: "units", LayerPlan: "layers", EmptiedPlan: "emptied"}
    return kinds[type(plan)]


def _check_version(document: Any) -> None:
    version = document["version"]
    if version != SAVED_VERSION:
        raise ConfigError(
            f"run: version {SAVED_VERSION} is needed, got {version}",
            "prune again with this version of prunecli",
        )


def saved_to_json(saved: Saved) -> str:
    """A finished run as text."""
    document = {
        "version": SAVED_VERSION,
        "config": to_plain(from_anywhere(saved.config, Path())),
        "sha256": saved.sha256,
        "plans": json.loads(plans_to_json(saved.plans)),
        "masked": list(saved.masked),
        "report": to_plain(saved.report),
        "trained": saved.trained,
        "program": str(saved.program.resolve()),
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def from_anywhere(config: RunConfig, folder: Path) -> RunConfig:
    """The configuration with paths that hold in every folder; now they start from `folder`."""
    model, data = config.model, config.data
    checkpoint = (folder / model.checkpoint).resolve()
    model = replace(model, checkpoint=checkpoint, factory=_code(model.factory, folder))
    if data is not None:
        task = data.task and replace(data.task, custom=_code(data.task.custom, folder))
        processor = data.processor and (folder / data.processor).resolve()
        path = (folder / data.path).resolve()
        data = replace(data, path=path, task=task, processor=processor)
    return replace(config, model=model, data=data)


def _code(spec: str | None, folder: Path) -> str | None:
    """`FILE.py:name` with a path that holds in every folder; anything else as it is."""
    file, colon, name = (spec or "").rpartition(":")
    return f"{(folder / file).resolve()}:{name}" if colon and file.endswith(".py") else spec


def is_run(path: Path) -> bool:
    """Whether a path is what a run left."""
    return (path / RUN_FILE).is_file()


def _beside(run: Path, program: Path) -> Path:
    """The program beside the run's folder, wherever both were moved to."""
    found = run.with_suffix(".pt2")
    return found if found.is_file() else program


def read_saved(path: Path) -> Saved:
    """The run that left this folder.

    Raises:
        ConfigError: no run did, or one of another version.
    """
    if not is_run(path):
        raise ConfigError(
            f"run {path}: the folder that a finished run left is needed, got none with {RUN_FILE}",
            "give the folder beside the ONNX file: model.run for model.onnx",
        )
    try:
        document = json.loads((path / RUN_FILE).read_text(encoding="utf-8"))
        _check_version(document)
        return Saved(
            from_plain(RunConfig, document["config"]),
            from_plain(str, document["sha256"]),
            plans_from_json(json.dumps(document["plans"])),
            tuple(from_plain(str, name) for name in document["masked"]),
            from_plain(Report, document["report"]),
            from_plain(bool, document["trained"]),
            _beside(path, Path(document["program"])),
        )
    except (OSError, *MALFORMED) as error:
        raise ConfigError(
            f"run {path}: cannot be read: {error}", "prune again to make a new one"
        ) from error
