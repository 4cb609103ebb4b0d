"""Lets torchvision be imported where its compiled part does not load.

Stage: below loading. torchmetrics and timm import torchvision wherever it is installed. A CPU-only
torch next to torchvision's CUDA build (which is what the package registry serves on Linux) fails in
that import: two operators that torchvision describes do not exist. Declaring them is enough. Never
touches a torchvision that works.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

import torch

_declared: list[torch.library.Library] = []
"""Keeps the declarations alive: torch drops them with their library object."""


def declare_missing_operators() -> None:
    """Declare torchvision's operators if torchvision is installed and cannot bring its own."""
    if "torchvision" in sys.modules or hasattr(torch.ops.torchvision, "nms"):
        return
    spec = find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        return
    if _compiled_part_loads(Path(spec.submodule_search_locations[0])):
        return
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name in ("nms", "qnms"):
        schema = f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        library.define(schema)  # type: ignore[no-untyped-call]
    _declared.append(library)


def _compiled_part_loads(folder: Path) -> bool:
    libraries = [*folder.glob("_C*.so"), *folder.glob("_C*.pyd")]
    try:
        for library in libraries:
            torch.ops.load_library(library)  # type: ignore[no-untyped-call]
    except OSError:
        return False
    return bool(libraries)
