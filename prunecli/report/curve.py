"""The learning curve, in one line.

Stage: report. In: a report. Out: text. The JSON report holds the whole curve.
"""

from prunecli.metric import Metric
from prunecli.report import units
from prunecli.report.record import EpochRow, Report, Scoring

MOST_EPOCHS = 6
"""Of more, so many are shown, evenly from the first to the last."""


def learning_curve(report: Report) -> list[str]:
    """Loss and score over the epochs of all phases; nothing where there is but one."""
    rows = report.training
    if len(rows) < 2:
        return []
    gaps = min(len(rows), MOST_EPOCHS) - 1
    shown = [rows[round(place * (len(rows) - 1) / gaps)] for place in range(gaps + 1)]
    return [f"learning curve: {'; '.join(_point(row, report.scoring) for row in shown)}"]


def score_in_words(value: float, metric: Metric) -> str:
    """A score with its name."""
    return f"{metric.title} {units.score(metric, value)}"


def _point(row: EpochRow, scoring: Scoring | None) -> str:
    words = f"epoch {row.epoch} loss {units.significant(row.train_loss, 4)}"
    if row.score is None or scoring is None:
        return words
    return f"{words} {score_in_words(row.score, scoring.leading)}"
