"""The stages in their order: `prune(RunConfig, Reporter) -> Report`, and the first of them alone:
`inspect(ModelConfig, Reporter) -> Inspection`."""

from prunecli.pipeline.inspecting import inspect
from prunecli.pipeline.run import prune

__all__ = ["inspect", "prune"]
