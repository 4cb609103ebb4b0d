"""The pipeline: one function for everything that the command line can do."""

from prunecli.config import ModelConfig, RestoreConfig, ResumeConfig, RunConfig
from prunecli.pipeline.inspecting import inspect
from prunecli.pipeline.restoring import restore
from prunecli.pipeline.resuming import resume
from prunecli.pipeline.run import prune
from prunecli.pipeline.saved import is_run, read_saved
from prunecli.progress import Reporter
from prunecli.report.inspection import Inspection
from prunecli.report.record import Report

__all__ = ["inspect", "perform", "prune", "restore", "resume"]


def perform(
    config: RunConfig | ModelConfig | RestoreConfig | ResumeConfig, reporter: Reporter
) -> Report | Inspection:
    """Do what a configuration asks for.

    Raises:
        PrunecliError: see the functions of this package.
    """
    if isinstance(config, RunConfig):
        return prune(config, reporter)
    if isinstance(config, RestoreConfig):
        return restore(config, reporter)
    if isinstance(config, ResumeConfig):
        return resume(config, reporter)
    if is_run(config.checkpoint):
        return read_saved(config.checkpoint).report
    return inspect(config, reporter)
