"""Reading is quiet: heavy imports only when needed, nothing written, nobody called."""

import os
import subprocess
import sys
from pathlib import Path

from data_making import image_parquet

SCRIPT = """
import socket
import sys
from pathlib import Path

def refuse(*args, **kwargs):
    raise AssertionError("a connection was opened")

socket.socket.connect = socket.getaddrinfo = refuse

from prunecli.config import DataConfig
from prunecli.data import open_data
from prunecli.progress import SilentReporter

assert not {"datasets", "pyarrow", "pandas"} & sys.modules.keys()
data = open_data(DataConfig(Path(sys.argv[1])), sample_shape=None, reporter=SilentReporter())
assert data.labels[0].classes == ("a", "b"), data.labels[0].classes
assert "datasets" in sys.modules
"""


def test_parquet_is_read_without_network_and_without_a_cache(tmp_path: Path) -> None:
    file = image_parquet(tmp_path / "set" / "train.parquet", [0, 1] * 10, ["a", "b"])
    home = tmp_path / "home"
    home.mkdir()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    for name in ("HOME", "XDG_CACHE_HOME", "TMPDIR"):
        environment[name] = str(home)
    # torchmetrics imports it where it is installed, and it makes a folder of its own.
    environment["MPLCONFIGDIR"] = str(tmp_path / "matplotlib")
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(file)],
        env=environment,
        cwd=home,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert list(home.iterdir()) == []
    assert list(file.parent.iterdir()) == [file]
