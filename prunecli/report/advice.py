"""What a user can do about a part that is frozen.

Stage: report. In: the reason. Out: a sentence fragment, or nothing where there is nothing to do
(an output has the size it has).
"""

import re

NO_RULE = "no rule for this operator"

OWN_SIZE = (
    "the other side has a size of its own (computed, or a constant in the code): as a parameter or "
    "buffer of the module it can shrink too"
)

ADVICE = {
    NO_RULE: "write this step with common operators, or add a rule for it "
    "(docs/operators.md shows how)",
    "is indexed by a tensor": "take channels with slices instead of index tensors",
    "is moved as a tensor says": "take channels with slices instead of index tensors",
    "is sampled at computed places": "sample along other axes than the channels",
    "is cut where the input's size says": "cut channels at constant places",
    "is indexed by a constant": "a slice of several channels can shrink, a single index cannot",
    "is reduced over": "a sum, mean or norm may lose channels that are zero (a convolution's, also "
    "after a ReLU, not after a sigmoid); reduce anything else over other axes",
    "is rolled": "roll other axes than the channels",
    "is added to an axis that cannot shrink": OWN_SIZE,
    "is multiplied with an axis that cannot shrink": OWN_SIZE,
    "meets an axis that cannot shrink": OWN_SIZE,
}
"""Reason, as the rules word it, and what to do."""

_LIBRARY = re.compile(r"[\\/](site-packages|dist-packages)[\\/](torch|timm|torchvision)[\\/]")
_FRAME = re.compile(r'File "([^"]+)", line (\d+), in ')


def advice(reason: str) -> str | None:
    """What to do about `reason`, if anything."""
    return ADVICE.get(reason)


def source_line(trace: str) -> str | None:
    """`net.py:12`: the innermost line of a stack trace that is not the libraries' own."""
    frames = _FRAME.findall(trace)
    own = [frame for frame in frames if not _LIBRARY.search(frame[0])] or frames
    if not own:
        return None
    file, line = own[-1]
    return f"{re.split(r'[/]|' + re.escape(chr(92)), file)[-1]}:{line}"
