"""All tasks by name, and the one that a run is about.

Stage: tasks. In: `--task`, and what the data's targets look like. Out: a `Task`.
"""

from collections.abc import Mapping, Sequence

from prunecli.choices import TaskName
from prunecli.config import TaskConfig
from prunecli.tasks.classes import CLASSIFICATION, MASKED_TOKENS, NEXT_TOKENS, PIXELS, TOKENS
from prunecli.tasks.custom import load_task
from prunecli.tasks.heads import Head, combined, place_of
from prunecli.tasks.match import MATCH
from prunecli.tasks.numbers import MULTILABEL, REGRESSION
from prunecli.tasks.task import Labels, Task

TASKS: Mapping[TaskName, Task] = {
    TaskName.CLASSIFICATION: CLASSIFICATION,
    TaskName.MULTILABEL: MULTILABEL,
    TaskName.REGRESSION: REGRESSION,
    TaskName.SEGMENTATION: PIXELS,
    TaskName.TOKEN_CLASSIFICATION: TOKENS,
    TaskName.LANGUAGE_MODELLING: NEXT_TOKENS,
    TaskName.MASKED_LANGUAGE_MODELLING: MASKED_TOKENS,
    TaskName.MATCH: MATCH,
}


def make_task(config: TaskConfig | None, labels: Sequence[Labels]) -> Task:
    """The task that was asked for, or the one that the targets look like.

    Tasks of several outputs read the first ones; see `bound`.

    Raises:
        ConfigError, ModelError: see `load_task`.
    """
    if config is None:
        # Readers only say what they have understood.
        kind = labels[0].kind
        assert kind is not None
        return TASKS[kind]
    if config.custom is not None:
        return load_task(config.custom)
    if config.heads:
        return _heads(config, range(len(config.heads)))
    assert config.name is not None
    return TASKS[config.name]


def bound(task: Task, config: TaskConfig | None, outputs: Sequence[str]) -> Task:
    """`task` with its heads at the outputs that they name.

    Raises:
        ConfigError: an output that does not exist.
    """
    if config is None or not config.heads:
        return task
    return _heads(config, [place_of(head.name, outputs) for head in config.heads])


def _heads(config: TaskConfig, places: Sequence[int]) -> Task:
    return combined(
        [
            Head(head.name, TASKS[head.task], head.weight, place)
            for head, place in zip(config.heads, places, strict=True)
        ]
    )
