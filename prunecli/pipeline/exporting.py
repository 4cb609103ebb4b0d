"""ONNX files of a run's networks: written, verified, scored.

Stage: pipeline. In: a network. Out: files in a folder that goes with the run. Never gives a file
its final name.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

from torch import fx

from prunecli.choices import Storage
from prunecli.config import RunConfig
from prunecli.data import DataSet
from prunecli.export.onnx_file import (
    Exportable,
    make_exportable,
    nonzero_weights,
    stored_bytes,
    write_onnx,
)
from prunecli.export.verify import verify_masked, verify_outputs, verify_shrunk
from prunecli.files import writing
from prunecli.graph.cost import Cost
from prunecli.measure.score import Score
from prunecli.pipeline.journal import Journal
from prunecli.pipeline.judge import check_chance, score
from prunecli.pipeline.ledger import Ledger
from prunecli.pipeline.packing import pack_score, unpack_score
from prunecli.pipeline.prepare import Prepared
from prunecli.pipeline.saved import plans_to_json
from prunecli.pipeline.state import State
from prunecli.progress import Reporter
from prunecli.report.record import RowName


@dataclass
class Files:
    """Exports of one run, renamed only when all is well.

    Attributes:
        final: what messages name.
    """

    folder: Path
    final: Path
    onnx: dict[RowName, Path] = field(default_factory=dict)
    scores: dict[RowName, Score] = field(default_factory=dict)
    costs: dict[RowName, Cost] = field(default_factory=dict)
    nonzero: dict[RowName, int] = field(default_factory=dict)

    def path(self, name: RowName) -> Path:
        """Where this network goes."""
        return self.folder / f"{name.value}.onnx"


@dataclass(frozen=True)
class Exporter:
    """Writes the networks of one run."""

    config: RunConfig
    prepared: Prepared
    files: Files
    ledger: Ledger
    reporter: Reporter
    journal: Journal

    def original(self, cost: Cost) -> None:
        """The original as an ONNX file, and its score: before anything else, is the setup right?

        Raises:
            VerificationError: onnxruntime computes something else.
        """
        captured = self.prepared.captured
        name, ledger = RowName.ORIGINAL, self.ledger
        with ledger.stage("export original"), self.reporter.step("exporting the original"):
            exportable = self._written(name, captured.network, {}, Storage.DENSE)
            verified = verify_outputs(
                self.files.path(name),
                captured.network,
                exportable,
                self.config.atol,
                self.config.train.seed,
            )
            if verified.unvaried:
                ledger.remark(
                    f"axes {', '.join(verified.unvaried)} were checked in onnxruntime at one "
                    "length only: the network refuses a shorter one"
                )
            self.files.onnx[name] = self.files.path(name)
            self.files.costs[name] = cost
        if self.prepared.data is not None:
            with ledger.stage("score original"):
                found = self._scored(self.files.path(name), self.prepared.data)
                check_chance(found, ledger, self.reporter)
                self.files.scores[name] = found

    def untrained(self, state: State) -> None:
        """The pruned network before any training, as a row of its own."""
        self.state(RowName.PRUNED, state)

    def state(self, name: RowName, state: State) -> Exportable:
        """A pruned network.

        Raises:
            VerificationError: onnxruntime computes something else, or nothing shrank.
        """
        path, ledger = self.files.path(name), self.ledger
        step = f"exporting the {name.value} network"
        with ledger.stage(f"export {name.value}"), self.reporter.step(step):
            exportable = self._written(
                name, state.network, self._metadata(state), self.config.storage
            )
            seed = self.config.train.seed
            verified = verify_outputs(path, state.network, exportable, self.config.atol, seed)
            self._note_checks(path, state)
            ledger.note(
                checks=replace(
                    ledger.report.checks,
                    onnx_difference=verified.difference,
                    onnx_tolerance=self.config.atol,
                    onnx_batches=verified.batches,
                )
            )
            self.files.onnx[name], self.files.costs[name] = path, state.cost
            if state.weights is not None:
                self.files.nonzero[name] = nonzero_weights(path)[0]
        if self.prepared.data is not None:
            with ledger.stage(f"score {name.value}"):
                self.files.scores[name] = self._scored(path, self.prepared.data)
        return exportable

    def _scored(self, path: Path, data: DataSet) -> Score:
        return self.journal.once(
            "score",
            lambda: score(path, data, self.reporter),
            pack_score,
            unpack_score,
            alone=True,
        )

    def _written(
        self, name: RowName, network: fx.GraphModule, metadata: Mapping[str, str], storage: Storage
    ) -> Exportable:
        exportable = make_exportable(network, self.prepared.captured)
        with writing(self.files.final):
            write_onnx(exportable, self.files.path(name), metadata, storage)
        return exportable

    def _note_checks(self, path: Path, state: State) -> None:
        """Where something went for good, the file holds that much less; where weights were
        masked, they are zero in it.

        Raises:
            VerificationError: it is not so.
        """
        original = self.files.onnx[RowName.ORIGINAL]
        removed = self.files.costs[RowName.ORIGINAL].params - state.cost.params
        if removed > 0:
            verify_shrunk(original, path, removed)
        if state.masks:
            verify_masked(path, state.network, state.masks)
        if removed <= 0 and not state.masks:
            return
        self.ledger.note(
            checks=replace(
                self.ledger.report.checks,
                initializer_bytes_before=stored_bytes(original),
                initializer_bytes_after=stored_bytes(path),
            )
        )

    def _metadata(self, state: State) -> Mapping[str, str]:
        """What made the file, for whoever finds it later."""
        return {
            "prunecli.version": version("prunecli"),
            "prunecli.command": self.config.command,
            "prunecli.checkpoint": self.config.model.checkpoint.name,
            "prunecli.checkpoint_sha256": self.prepared.sha256,
            "prunecli.plan": plans_to_json(state.plans),
            "prunecli.versions": ", ".join(
                f"{name} {version(name)}" for name in ("torch", "onnx", "onnxruntime")
            ),
        }
