"""Tasks: what a network is trained for, and how it is judged; one record each, in one table.

Stage: tasks. In: `--task`, outputs and targets. Out: losses, distances, scores. Never reads data,
never runs a network.
"""

from prunecli.tasks.classes import CLASSIFICATION
from prunecli.tasks.numbers import REGRESSION
from prunecli.tasks.table import TASKS, bound, make_task
from prunecli.tasks.task import Fit, Labels, Meter, Scores, Task, Tensors, in_numbers

__all__ = [
    "CLASSIFICATION",
    "REGRESSION",
    "TASKS",
    "Fit",
    "Labels",
    "Meter",
    "Scores",
    "Task",
    "Tensors",
    "bound",
    "in_numbers",
    "make_task",
]
