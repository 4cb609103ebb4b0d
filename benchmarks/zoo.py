"""The zoo: many networks with random weights, each pruned to half of its MACs and checked.

    python benchmarks/zoo.py                            every family
    python benchmarks/zoo.py --core                     the set that every change is checked against
    python benchmarks/zoo.py --family timm --filter vit
    python benchmarks/zoo.py --json zoo.json            the same, for machines
    python benchmarks/zoo.py --json zoo.json --resume   go on where that one was stopped

Each network runs in a process of its own, one after another; a crash costs one row. A row is
printed when its network is done. Exit code 1 if a network failed.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from zoo_entry import Entry
from zoo_registry import FAMILIES
from zoo_row import Row, from_json, read
from zoo_table import LEGEND, heading, line, totals

WORKER = Path(__file__).with_name("zoo_run.py")


def main() -> int:
    """Run what was asked for."""
    options = _options()
    chosen = list(_chosen(options))
    if not chosen:
        print("no model has such a name", file=sys.stderr)
        return 2
    width = max(len(entry.name) for _, entry in chosen)
    rows: list[Row] = []
    known = _known(options.json) if options.resume else {}
    print(heading(width), flush=True)
    for family, entry in chosen:
        row = known.get((family, entry.name)) or _run(family, entry.name, options)
        rows.append(row)
        print(line(row, width), flush=True)
        if options.json is not None:
            _write(options.json, rows)
    print()
    for text in (*totals(rows), "", LEGEND):
        print(text)
    return 1 if any(row.status == "FAIL" for row in rows) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Prune many networks and check the results.")
    parser.add_argument("--family", choices=list(FAMILIES), help="one family (default: all)")
    parser.add_argument("--filter", metavar="X", default="", help="names that match this pattern")
    parser.add_argument("--core", action="store_true", help="the core set only")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all that is known here")
    parser.add_argument("--resume", action="store_true", help="keep the rows of the JSON file")
    parser.add_argument(
        "--timeout", metavar="S", type=float, default=1800.0, help="seconds per model (1800)"
    )
    parser.add_argument(
        "--memory", metavar="GIB", type=float, default=16.0, help="memory per model (16)"
    )
    options = parser.parse_args()
    if options.resume and options.json is None:
        parser.error("--resume needs --json FILE")
    return options


def _chosen(options: argparse.Namespace) -> Iterator[tuple[str, Entry]]:
    for family in [options.family] if options.family else FAMILIES:
        try:
            found = FAMILIES[family]()
        except ModuleNotFoundError as error:
            print(f"{family}: left out: {error}", file=sys.stderr)
            continue
        for entry in found:
            if re.search(options.filter, entry.name) and (entry.core or not options.core):
                yield family, entry


def _run(family: str, name: str, options: argparse.Namespace) -> Row:
    """One network in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "row.json"
        arguments = [family, name, str(result), str(int(options.memory * 2**30))]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        try:
            done = subprocess.run(
                [sys.executable, str(WORKER), *arguments],
                capture_output=True,
                text=True,
                timeout=options.timeout,
                env=environment,
            )
            trouble, details = _trouble(done.returncode, done.stderr), done.stderr
        except subprocess.TimeoutExpired:
            trouble, details = f"not done after {options.timeout:.0f} s", ""
        row = read(result) if result.exists() else Row(family, name)
    if row.finished or row.why:
        return row
    return replace(row, why=f"{row.stage}: {trouble}", details=details[-8000:])


def _trouble(code: int, errors: str) -> str:
    """The cause of a worker's death in one line: its exception, or the signal."""
    if code < 0:
        return f"killed by signal {-code}" + (" (out of memory?)" if code == -9 else "")
    # A line that names a class: what stands before the first colon has no blanks.
    lines = [text for text in errors.splitlines() if re.match(r"[A-Za-z_][\w.]*(: |$)", text)]
    # The temporary folder differs from run to run.
    return re.sub(r"\S*/(?=model\.onnx)", "", lines[-1])[:300] if lines else f"exit code {code}"


def _known(path: Path) -> dict[tuple[str, str], Row]:
    """Rows of an earlier run."""
    if not path.exists():
        return {}
    rows = [from_json(item) for item in json.loads(path.read_text(encoding="utf-8"))["rows"]]
    return {(row.family, row.name): row for row in rows}


def _write(path: Path, rows: Sequence[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {"command": sys.argv, "rows": [row.to_json() for row in rows]}
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
