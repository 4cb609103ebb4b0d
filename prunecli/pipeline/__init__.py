"""The stages in their order: `prune(RunConfig, Reporter) -> Report`."""

from prunecli.pipeline.run import prune

__all__ = ["prune"]
