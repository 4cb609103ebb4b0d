"""Last part of a run: size, accuracy and latency of the ONNX files.

Stage: pipeline. In: files. Out: rows of the table. Never looks at a network in PyTorch.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from prunecli.config import MeasureConfig
from prunecli.data import DataSet, batches
from prunecli.graph.cost import Cost
from prunecli.measure.latency import Comparison, compare_latency
from prunecli.measure.score import Arrays, Score, score_file
from prunecli.measure.size import file_size
from prunecli.pipeline.ledger import Ledger
from prunecli.progress import Reporter
from prunecli.report.record import LatencySetup, Row, RowName, Scoring, Spread, with_differences

SCORING_BATCH = 256


def score(path: Path, data: DataSet, reporter: Reporter) -> Score:
    """Scores of a file on the whole validation split, in onnxruntime."""
    return score_file(path, _arrays(data), data.task, reporter, examples=len(data.validation))


def _arrays(data: DataSet) -> Iterator[tuple[Arrays, Arrays]]:
    for inputs, targets in batches(data.validation, data.prepare, SCORING_BATCH):
        yield tuple(item.numpy() for item in inputs), tuple(item.numpy() for item in targets)


def check_chance(found: Score, ledger: Ledger, reporter: Reporter) -> None:
    """Say at once when the original guesses: then nothing after it means anything."""
    # Where a constant answer is as good, the original is no better.
    if found.chance is None or not found.metric.at_least_as_good(found.chance, found.value):
        return
    text = (
        f"the original model scores {found.value:.4g} ({found.metric.name}), no better than a "
        f"constant answer ({found.chance:.4g}): the preprocessing (--mean, --std, --image-size) or "
        "the labels are wrong"
    )
    ledger.warn(text)
    reporter.warn(text)


def measure(
    files: Mapping[RowName, Path],
    costs: Mapping[RowName, Cost],
    nonzero: Mapping[RowName, int],
    scores: Mapping[RowName, Score],
    example: tuple[Tensor, ...],
    config: MeasureConfig,
    ledger: Ledger,
    reporter: Reporter,
) -> None:
    """Fill the report's table.

    Args:
        nonzero: weights that are not zero, of files with masks.
        example: one tensor for each input, for the latency runs.
    """
    compared = compare_latency(
        {name.value: path for name, path in files.items()},
        tuple(item.numpy() for item in example),
        config,
        reporter,
    )
    rows = with_differences(
        [
            replace(
                _row(name, path, costs[name], scores.get(name), compared),
                nonzero=nonzero.get(name),
            )
            for name, path in files.items()
        ]
    )
    ledger.note(rows=rows, latency=LatencySetup(compared.threads, compared.batch, compared.rounds))
    first = next(iter(scores.values()), None)
    if first is not None:
        ledger.note(
            scoring=Scoring(
                first.metric.name,
                "validation",
                first.examples,
                first.metric.higher_is_better,
                first.chance,
                first.metric,
                tuple(metric for metric, _ in first.others),
            )
        )


def _row(name: RowName, path: Path, cost: Cost, found: Score | None, compared: Comparison) -> Row:
    size, timing = file_size(path), compared.files[name.value]
    row = Row(
        name,
        size.size_bytes,
        size.compressed_bytes,
        round(cost.params),
        round(cost.macs),
        Spread(timing.latency.low_ms, timing.latency.p50_ms, timing.latency.high_ms),
        Spread(timing.speedup.low, timing.speedup.p50, timing.speedup.high),
    )
    if found is None:
        return row
    others = {metric.name: value for metric, value in found.others}
    return replace(row, score=found.value, others=others, r2=others.get("r2"))
