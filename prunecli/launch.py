"""Which of several processes this is, as `torchrun` and `accelerate launch` say it.

Stage: below everything. In: the environment. Out: numbers. Never imports torch: the command line
asks before anything heavy is loaded.
"""

import os

NEEDED = ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT")
"""Variables that a launcher sets; where one is missing, this is a process by itself."""


def size() -> int:
    """How many processes work on this run, on all machines together."""
    return _number("WORLD_SIZE", 1)


def rank() -> int:
    """Which of them this is, from 0."""
    return _number("RANK", 0)


def is_main() -> bool:
    """Whether this one writes files and prints; exactly one does."""
    return rank() == 0


def cpu_only() -> bool:
    """Whether the launcher was told to leave GPUs alone."""
    return os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes", "on")


def _number(name: str, alone: int) -> int:
    if not all(os.environ.get(needed) for needed in NEEDED):
        return alone
    found = os.environ[name]
    return int(found) if found.isdecimal() else alone
