"""Prune a trained network, fine-tune it, and ship a smaller, faster, verified ONNX file.

    import prunecli
    report = prunecli.prune(prunecli.RunConfig(...), prunecli.make_reporter(quiet=True))
    found = prunecli.inspect(prunecli.ModelConfig(...), prunecli.make_reporter(quiet=True))
    report = prunecli.resume(prunecli.ResumeConfig(...), prunecli.make_reporter(quiet=True))

The command line is a thin layer over the same functions. Importing this package does not import
torch; the first use of `prune`, `inspect` or `resume` does.
"""

from typing import TYPE_CHECKING, Any

from prunecli.choices import Criterion
from prunecli.config import DataConfig, MeasureConfig, ModelConfig, ResumeConfig, RunConfig
from prunecli.errors import PrunecliError
from prunecli.parsing import parse_ratio, parse_target
from prunecli.progress import make_reporter
from prunecli.removal import Removal, Target, UnitsWanted
from prunecli.tuning import TrainConfig

if TYPE_CHECKING:
    from prunecli.pipeline import inspect, prune, resume

__version__ = "0.1.0"

__all__ = [
    "Criterion",
    "DataConfig",
    "MeasureConfig",
    "ModelConfig",
    "PrunecliError",
    "Removal",
    "ResumeConfig",
    "RunConfig",
    "Target",
    "TrainConfig",
    "UnitsWanted",
    "__version__",
    "inspect",
    "make_reporter",
    "parse_ratio",
    "parse_target",
    "prune",
    "resume",
]


def __getattr__(name: str) -> Any:
    if name in ("inspect", "prune", "resume"):
        from prunecli import pipeline

        return getattr(pipeline, name)
    raise AttributeError(f"module 'prunecli' has no attribute {name!r}")
