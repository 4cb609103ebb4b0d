"""How many bytes a file takes, as it is and compressed.

Stage: measure. In: the path of a file. Out: two numbers. Never writes, never holds the whole file.
"""

import zlib
from dataclasses import dataclass
from pathlib import Path

_GZIP = zlib.MAX_WBITS | 16
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class FileSize:
    """A file's size.

    Attributes:
        size_bytes: on disk.
        compressed_bytes: after gzip at its best level; what a download or a package costs,
            and where zeros stop counting.
    """

    size_bytes: int
    compressed_bytes: int


def file_size(path: Path) -> FileSize:
    """Measure one file, which must hold its weights itself.

    Raises:
        OSError: the file cannot be read.
    """
    squeeze = zlib.compressobj(level=9, method=zlib.DEFLATED, wbits=_GZIP)
    size = compressed = 0
    with path.open("rb") as stream:
        for block in iter(lambda: stream.read(_BLOCK_BYTES), b""):
            size += len(block)
            compressed += len(squeeze.compress(block))
    return FileSize(size, compressed + len(squeeze.flush()))
