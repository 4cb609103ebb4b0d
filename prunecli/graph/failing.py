"""Where in the user's code capture failed, and what to do about it.

Stage: graph. In: what torch.export raised. Out: one `ModelError`.
"""

import linecache
import re
from pathlib import Path
from types import TracebackType

from torch import nn

from prunecli.errors import ModelError, first_line

LIBRARY = re.compile(r"[\\/](site-packages|dist-packages)[\\/]torch[\\/]")

ADVICE = (
    ("data-dependent", "what is done must not depend on values: compute both and choose with "
     "torch.where, or take sizes from shapes instead of from tensors"),
    ("numpy", "compute with torch instead of NumPy in forward"),
    ("non-tensor", "forward must take and return tensors, in dictionaries or lists if need be"),
)  # fmt: skip
"""Words of torch's message -> what to do."""

DEFAULT = "this step must become tensor operators; the torch.export documentation says which exist"


def cannot_capture(module: nn.Module, error: BaseException) -> ModelError:
    """The error to raise: what torch said, in which module and line, and what could be done."""
    text = first_line(error)
    hint = next((advice for word, advice in ADVICE if word in text), DEFAULT)
    return ModelError(f"model: torch.export cannot capture {_place(module, error)}: {text}", hint)


def _place(module: nn.Module, error: BaseException) -> str:
    """`body.0 (net.py:12: if x.sum() > 0:)`: the innermost line that is not torch's own."""
    names = {id(part): name for name, part in module.named_modules()}
    found, owner = "", ""
    step: TracebackType | None = error.__traceback__
    while step is not None:
        file = step.tb_frame.f_code.co_filename
        inner = step.tb_frame.f_locals.get("self")
        if not LIBRARY.search(file) and not file.startswith(str(Path(__file__).parents[1])):
            line = linecache.getline(file, step.tb_lineno).strip()
            found = f" ({Path(file).name}:{step.tb_lineno}: {line})" if line else ""
            owner = names.get(id(inner), owner)
        step = step.tb_next
    return f"{owner or 'it'}{found}"
