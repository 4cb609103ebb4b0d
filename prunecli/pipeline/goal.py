"""What the score on the validation split must be: for `--max-drop`, and for `--until-recovered`.

Stage: pipeline. In: a margin and the original. Out: a `Goal`. Changes nothing.

It is judged on the validation split, since the part held out for choosing comes from the training
data, whose examples the original has learnt: its score there says little about what was lost.
"""

from dataclasses import dataclass

from prunecli import crew
from prunecli.config import RunConfig
from prunecli.data import DataSet
from prunecli.errors import ConfigError
from prunecli.metric import Metric
from prunecli.pipeline.job import Job
from prunecli.pipeline.packing import pack_number, unpack_number
from prunecli.pipeline.state import State
from prunecli.recovery import score
from prunecli.shares import Margin


@dataclass(frozen=True)
class Goal:
    """Which scores are good enough.

    Attributes:
        needed: the least good of them.
    """

    margin: Margin
    metric: Metric
    needed: float

    def reached(self, found: float) -> bool:
        """Whether a score is good enough."""
        return self.metric.at_least_as_good(found, self.needed)

    def in_words(self, found: float, after: str = "") -> str:
        """What was found (`after 3 epochs`), and what is needed."""
        metric = self.metric
        least = "at least" if metric.higher_is_better else "at most"
        return (
            f"validation {metric.title} {metric.in_words(found)}{after and ' '}{after}, {least} "
            f"{metric.in_words(self.needed)} is needed"
        )


def validation_score(job: Job, state: State) -> float:
    """Score of the network as it is on the validation split, now or in an earlier process."""
    return job.journal.once("judge", lambda: judged(job, state), pack_number, unpack_number)


def judged(job: Job, state: State) -> float:
    """The same, in PyTorch."""
    data = job.prepared.data
    assert data is not None
    with job.reporter.step("judging on the validation split"):
        found = score(state.network, data.validation, data, job.config.train.batch_size).value
    return crew.shared(found)


def check_margins(config: RunConfig, data: DataSet) -> None:
    """Refuse margins that the task's metric does not have.

    Raises:
        ConfigError: points of a number, or a share of the distance of the original to itself.
    """
    metric = data.task.metric
    margins = {
        "--max-drop": config.removal.timing.largest_drop,
        "--until-recovered": config.train.until,
    }
    for flag, margin in margins.items():
        if margin is None:
            continue
        if not data.task.labelled:
            raise ConfigError(
                f"{flag}: goes by the original's score, got --task {data.task.name}, where that "
                "is an error of 0",
                "leave it out, and look at the error in the table",
            )
        if not (metric.percent or margin.relative):
            raise ConfigError(
                f"{flag}: counts points of a percentage, got {metric.title}, a number",
                f"give it as a share of what the original scores: {flag} 5%",
            )


def goal_of(job: Job, state: State, margin: Margin | None) -> Goal | None:
    """The goal that a margin sets; `state` is the original."""
    data = job.prepared.data
    if margin is None or data is None:
        return None
    metric = data.task.metric
    return Goal(margin, metric, metric.floor(validation_score(job, state), margin))
