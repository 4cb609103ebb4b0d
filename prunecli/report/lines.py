"""What stands under the table: one line for each thing asked, got, frozen, checked and written.

Stage: report. In: a report. Out: lines of plain text, in a fixed order. Never computes a fact that
the report does not hold, and says nothing about what is not known.
"""

from prunecli.choices import Quantity, Strategy
from prunecli.report import units
from prunecli.report.curve import learning_curve, score_in_words
from prunecli.report.record import Achieved, Report, Row, RowName, Spread
from prunecli.report.removed import FrozenRow

NO_DATA = "no --data: nothing was trained, accuracy is not shown"
LEFT_OR_GONE = "targets say what is left, ratios say what goes"
NOTHING_WRITTEN = "dry run: nothing was written"

TOP = "the network itself"


def result_lines(report: Report) -> tuple[str, ...]:
    """Everything under the table of results."""
    return (
        *_warnings(report),
        *_asked(report, "got"),
        *_taken_back(report),
        *_speed(report),
        *_data(report),
        *_training(report),
        *learning_curve(report),
        *_scoring(report),
        *_frozen(report),
        *_checks(report),
        *_latency(report),
        *(f"wrote {kind}: {path}" for kind, path in report.files.items()),
        *_remarks(report),
    )


def dry_run_lines(report: Report) -> tuple[str, ...]:
    """Everything under the table of the plan."""
    return (
        *_warnings(report),
        *_asked(report, "predicted"),
        *_data(report),
        *_frozen(report),
        *_checks(report),
        *_remarks(report),
        NOTHING_WRITTEN,
    )


def _asked(report: Report, verb: str) -> list[str]:
    asked, got = report.requested, report.achieved
    if asked is None:
        return []
    if got is None:
        lines = [f"asked: {part.words}" for part in asked.parts]
    else:
        words = _words(got)
        lines = []
        for part in asked.parts:
            outcome = words.pop(part.quantity or part.strategy, None)
            # After everything was given back there is nothing left to say about a strategy.
            end = "" if outcome is None else f"; {verb}: {outcome[1]}"
            lines.append(f"asked: {part.words}{end}")
        lines += [f"{name}: {text}" for name, text in words.values()]
    how = ", ".join(f"{part.strategy} pruning by {part.criterion}" for part in asked.parts)
    return [*lines, f"how: {how}, {asked.schedule}, seed {asked.seed}; {LEFT_OR_GONE}"]


def _words(got: Achieved) -> dict[Quantity | Strategy, tuple[str, str]]:
    """Noun and outcome of everything that is known, by what a strategy's target counts."""
    found: dict[Quantity | Strategy, tuple[str, str]] = {
        Quantity.MACS: ("MACs", _left(got.macs_share, got.macs_before, got.macs_after)),
        Quantity.PARAMS: (
            "parameters",
            _left(got.params_share, got.params_before, got.params_after),
        ),
    }
    if got.channels_before is not None and got.channels_after is not None:
        share = units.percent(got.channels_removed_share or 0.0)
        words = f"{share} removed ({got.channels_before:,} -> {got.channels_after:,})"
        found[Quantity.CHANNELS] = ("channels", words)
    if got.layers_before is not None and got.layers_after is not None:
        gone = got.layers_before - got.layers_after
        found[Strategy.LAYER] = ("layers", f"{gone} of {got.layers_before} dropped")
    if got.weights_before is not None and got.weights_after is not None:
        share = units.percent(got.weights_removed_share or 0.0, 2)
        words = f"{share} removed ({got.weights_before:,} -> {got.weights_after:,})"
        found[Strategy.WEIGHT] = ("weights", words)
    return found


def _left(share: float, before: int, after: int) -> str:
    return f"{units.percent(share)} left ({units.count(before)} -> {units.count(after)})"


def _taken_back(report: Report) -> list[str]:
    gone: dict[tuple[int, str], None] = {}
    for step in report.steps:
        if step.taken_back is not None:
            gone[step.round, step.taken_back] = None
    return [f"taken back: round {number}: {why}" for number, why in gone]


def _speed(report: Report) -> list[str]:
    final = _final_row(report)
    if final is None or final.speedup is None or report.achieved is None:
        return []
    fewer = units.factor(1.0 / report.achieved.macs_share)
    return [f"speed: {fewer} fewer MACs; measured {_speed_words(final.speedup)}"]


def _speed_words(speedup: Spread) -> str:
    spread = f"({units.factor(speedup.low)} to {units.factor(speedup.high)})"
    if speedup.low <= 1.0 <= speedup.high:
        return f"{units.factor(speedup.p50)} {spread}, no clear difference from the original"
    if speedup.high < 1.0:
        return f"{units.factor(speedup.p50)} {spread}, slower than the original"
    return f"{units.factor(speedup.p50)} as fast {spread}"


def _final_row(report: Report) -> Row | None:
    others = [row for row in report.rows if row.name is not RowName.ORIGINAL]
    return others[-1] if others else None


def _data(report: Report) -> list[str]:
    if report.data is None:
        # Before there is a plan, data may only not have been read yet.
        return [NO_DATA] if report.achieved is not None else []
    data = report.data
    splits = ", ".join(f"{split.name} {split.examples:,}" for split in data.splits)
    parts = [f"data: {data.path} ({data.task})", splits, data.preprocess]
    lines = ["; ".join(part for part in parts if part)]
    if data.skipped:
        lines.append(f"skipped: {units.plural(data.skipped, 'example')} could not be read")
    return lines + [f"data: {note}" for note in data.notes]


def _training(report: Report) -> list[str]:
    if not report.training:
        finished = report.data is not None and report.status == "ok" and not report.dry_run
        return ["fine-tuned: no, 0 epochs"] if finished else []
    line = f"fine-tuned: {units.plural(len(report.training), 'epoch')}"
    best = next((row for row in report.training if row.epoch == report.best_epoch), None)
    if best is None:
        return [line]
    line += f", kept epoch {best.epoch}"
    if best.score is not None and report.scoring is not None:
        score = score_in_words(best.score, report.scoring.leading)
        line += f" ({score} on the part of the training data held out for choosing)"
    return [line]


def _scoring(report: Report) -> list[str]:
    scoring = report.scoring
    if scoring is None or all(row.score is None for row in report.rows):
        return []
    where = (
        f"on all {units.plural(scoring.examples, 'example')} of the {scoring.split} split, "
        "in onnxruntime"
    )
    metric = scoring.leading
    line = " ".join(part for part in (f"{metric.title}:", metric.detail, where) if part)
    if scoring.chance is None:
        return [line]
    chance = units.score(metric, scoring.chance, digits=1 if metric.percent else 4)
    return [f"{line}; {metric.chance} {chance}"]


def _frozen(report: Report) -> list[str]:
    if not report.frozen and not report.groups:
        return []  # Not known yet.
    return [*frozen_lines(report.frozen), *advice_lines(report.frozen)]


def frozen_lines(frozen: tuple[FrozenRow, ...]) -> list[str]:
    """What stays as it is, one line for each cause."""
    return [_frozen_line(row) for row in merged_causes(frozen)] or ["frozen: nothing"]


def merged_causes(frozen: tuple[FrozenRow, ...]) -> tuple[FrozenRow, ...]:
    """One row for each reason and operator, with all layers that it freezes."""
    by_cause: dict[tuple[str, str | None], dict[str, None]] = {}
    for row in frozen:
        layers = by_cause.setdefault((row.reason, row.operator), {})
        layers.update(dict.fromkeys(row.layers))
    return tuple(
        FrozenRow(tuple(layers), reason, operator)
        for (reason, operator), layers in by_cause.items()
    )


def advice_lines(frozen: tuple[FrozenRow, ...]) -> tuple[str, ...]:
    """What could be done about frozen parts, with the places in the code."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in frozen:
        if row.advice is not None:
            place = row.place or TOP
            where = f"{place} ({row.source})" if row.source is not None else place
            found.setdefault((cause(row), row.advice), []).append(where)
    return tuple(
        f"hint: {reason}, in {units.names(tuple(dict.fromkeys(places)))}: {text}"
        for (reason, text), places in found.items()
    )


def cause(row: FrozenRow) -> str:
    """Reason and operator."""
    # Many reasons name their operator already.
    operator = f" [{row.operator}]" if row.operator and row.operator not in row.reason else ""
    return f"{row.reason}{operator}"


def _frozen_line(row: FrozenRow) -> str:
    if not row.layers:
        return f"frozen: {cause(row)}"
    what = f"{units.plural(len(row.layers), 'layer')} ({units.names(row.layers)})"
    return f"frozen: {what}: {cause(row)}"


def _checks(report: Report) -> list[str]:
    checks = report.checks
    lines = []
    if checks.oracle_difference is not None:
        lines.append(
            _check(
                "the pruned network",
                "the original with the removed channels zeroed",
                checks.oracle_difference,
                checks.oracle_tolerance,
            )
        )
    if checks.onnx_difference is not None:
        other = "PyTorch" + _batches(checks.onnx_batches)
        lines.append(_check("onnxruntime", other, checks.onnx_difference, checks.onnx_tolerance))
    before, after = checks.initializer_bytes_before, checks.initializer_bytes_after
    if before is not None and after is not None:
        verdict = (
            "checked: weights in the ONNX file shrank"
            if after < before
            else ("FAILED: weights in the ONNX file did not shrink")
        )
        lines.append(f"{verdict}, {units.size(before)} -> {units.size(after)}")
    return lines


def _check(this: str, other: str, difference: float, tolerance: float | None) -> str:
    allowed = "" if tolerance is None else f" (tolerance {units.tolerance(tolerance)})"
    # Written so that a NaN counts as a failure.
    if tolerance is None or difference <= tolerance:
        return f"checked: {this} equals {other} within {units.tolerance(difference)}{allowed}"
    return f"FAILED: {this} differs from {other} by {units.tolerance(difference)}{allowed}"


def _batches(sizes: tuple[int, ...]) -> str:
    if not sizes:
        return ""
    if len(sizes) == 1:
        return f" on batch {sizes[0]}"
    return f" on batches {', '.join(map(str, sizes[:-1]))} and {sizes[-1]}"


def _latency(report: Report) -> list[str]:
    setup = report.latency
    if setup is None:
        return []
    version = f" {report.versions.onnxruntime}" if report.versions is not None else ""
    return [
        f"latency: {units.plural(setup.threads, 'thread')}, batch {setup.batch}, "
        f"onnxruntime{version}, interleaved, {units.plural(setup.rounds, 'round')}"
    ]


def _warnings(report: Report) -> list[str]:
    missed = [f"FAILED: {text}" for text in report.missed]
    return [*missed, *(f"WARNING {warning}" for warning in report.warnings)]


def _remarks(report: Report) -> list[str]:
    lines = [f"note: {note}" for note in report.notes]
    if report.status != "ok":
        lines.append(f"status: {report.status}")
    return lines
