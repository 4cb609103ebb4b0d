"""Why everything went that went, and why the rest stayed.

Stage: report. In: the steps of a run. Out: lines of plain text. Never computes a figure.
"""

from prunecli.report import units
from prunecli.report.removed import Fate, GroupRow, LayerRow, StepRow, WeightRow


def explain_lines(steps: tuple[StepRow, ...]) -> tuple[str, ...]:
    """One line for each step and each group, layer or tensor in it."""
    lines: list[str] = []
    for step in steps:
        note = "" if step.taken_back is None else f"; TAKEN BACK: {step.taken_back}"
        lines.append(
            f"explain: round {step.round}, {step.strategy} by {step.criterion}: {step.words}{note}"
        )
        lines += [f"  {_group(row)}" for row in step.groups]
        lines += [f"  {_layer(row)}" for row in step.layers]
        lines += [f"  {_weights(row)}" for row in step.weights]
    return tuple(lines)


def _group(row: GroupRow) -> str:
    gone = row.total - row.kept
    head = f"{row.id} ({row.kind}, {units.names(row.layers)}): {gone} of {row.total} went"
    parts = [head]
    if row.threshold is not None:
        parts.append(f"cut at {row.threshold:.4g}")
    parts += [f"went {_fate(fate)}" for fate in row.fates if fate.went]
    parts += [f"stayed {_fate(fate)}" for fate in row.fates if not fate.went]
    return "; ".join(parts)


def _fate(fate: Fate) -> str:
    scores = (
        f"score {fate.score_low:.4g}"
        if fate.score_low == fate.score_high
        else f"scores {fate.score_low:.4g} to {fate.score_high:.4g}"
    )
    return f"{len(fate.units)}: {fate.why} ({scores})"


def _layer(row: LayerRow) -> str:
    verb = "went" if row.dropped else "stayed"
    return (
        f"{row.name}: {verb}, {row.why}; score {row.score:.4g}, "
        f"{units.count(row.params)} parameters"
    )


def _weights(row: WeightRow) -> str:
    gone = row.total - row.kept
    cut = "" if row.threshold is None else f", cut at {row.threshold:.4g}"
    return (
        f"{row.name}: {gone:,} of {row.total:,} went ({units.percent(gone / row.total)}), "
        f"{row.why}{cut}"
    )
