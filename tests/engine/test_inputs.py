"""Networks with several inputs, dictionaries, flags and nested results, captured and exported."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from engine_harness import analyse_captured, channels, prune, shaken
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from prunecli.errors import ConfigError, ModelError
from prunecli.export.onnx_file import make_exportable, write_onnx
from prunecli.export.verify import verify_outputs
from prunecli.graph import folding
from prunecli.graph.calling import RANDOM
from prunecli.graph.capture import Captured, capture, capture_program, fitting_example
from prunecli.graph.inputs import of_specs, positional
from prunecli.parsing import parse_inputs
from prunecli.surgery.oracle import check

WORDS, WIDTH = 50, 16


class Text(nn.Module):
    """Tokens with a mask, pooled over the tokens that are not padding."""

    def __init__(self, longest: int = 500) -> None:
        super().__init__()
        self.tokens = nn.Embedding(WORDS, WIDTH)
        self.kinds = nn.Embedding(2, WIDTH)
        self.places = nn.Parameter(torch.zeros(longest, WIDTH))
        self.body = nn.Sequential(nn.Linear(WIDTH, 32), nn.GELU(), nn.Linear(32, WIDTH))
        self.head = nn.Linear(WIDTH, 4)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Any = None
    ) -> dict[str, Any]:
        x = self.tokens(input_ids) + self.places[: input_ids.shape[1]]
        if token_type_ids is not None:
            x = x + self.kinds(token_type_ids)
        x = x + self.body(x)
        if attention_mask is not None:
            weight = attention_mask[..., None].to(x.dtype)
            pooled = (x * weight).sum(1) / weight.sum(1)
        else:
            pooled = x.mean(1)
        return {"logits": self.head(pooled), "hidden": (x, None), "count": 3}


@dataclass
class Result:
    scores: Tensor
    features: list[Tensor]


class Batch(nn.Module):
    """A dictionary in, a dataclass out."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.table = nn.Conv2d(3, 8, 3), nn.Linear(5, 8)
        self.mix, self.head = nn.Linear(8, 12), nn.Linear(12, 2)

    def forward(self, batch: dict[str, Tensor], scale: float = 2.0) -> Result:
        image = self.image(batch["image"]).relu().mean((2, 3))
        mixed = self.mix(image * scale + self.table(batch["table"])).relu()
        return Result(self.head(mixed), [batch["image"].mean((1, 2, 3))])


class Any2(nn.Module):
    """Takes whatever comes, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, *parts: Tensor) -> tuple[Tensor, Tensor]:
        total = self.one(parts[0] + parts[1]).relu()
        return self.two(total), parts[1]


def captured(module: nn.Module, *inputs: str, by_position: bool = False) -> Captured:
    examples = of_specs(parse_inputs(inputs), by_position)
    return capture(module, *fitting_example(shaken(module), examples))


def halved(found: Captured) -> torch.fx.GraphModule:
    """Half of the units gone, checked by the oracle."""
    pruned = prune(analyse_captured(found), channels(0.5))
    check(found, pruned.network, pruned.kept)
    groups = pruned.plan.groups
    assert 2 * sum(item.kept for item in groups) <= sum(item.total for item in groups)
    assert pruned.plan.after.macs < pruned.plan.before.macs
    return pruned.network


def exported(found: Captured, path: Path) -> onnxruntime.InferenceSession:
    ready = make_exportable(halved(found), found)
    write_onnx(ready, path, {})
    verify_outputs(path, ready.program.module(), ready, 1e-5, seed=0)  # type: ignore[arg-type]
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def test_text_network_keeps_its_free_axes_and_names(tmp_path: Path) -> None:
    found = captured(
        Text(),
        "attention_mask=int64[batch,seq]",
        "input_ids=int64[batch,seq]",
        "token_type_ids=int64[batch,seq]",
    )
    assert found.axes == (("batch", "seq"),) * 3
    assert found.outputs == ("logits", "hidden_0")
    assert [item.limit for item in found.domains] == [0, WORDS, 2]
    session = exported(found, tmp_path / "text.onnx")
    names = ["attention_mask", "input_ids", "token_type_ids"]
    assert [item.name for item in session.get_inputs()] == names
    assert [item.shape for item in session.get_inputs()] == [["batch", "seq"]] * 3
    outputs = {item.name: item.shape for item in session.get_outputs()}
    assert outputs == {"logits": ["batch", 4], "hidden_0": ["batch", "seq", outputs["hidden_0"][2]]}
    # Lengths that were used neither in capture nor in verification.
    feed = {name: np.ones((5, 7), dtype=np.int64) for name in names}
    assert session.run(None, feed)[0].shape == (5, 4)


def test_the_graph_answers_as_the_module_does() -> None:
    module = Text()
    found = captured(module, "input_ids=int64[batch,seq]", "attention_mask=int64[batch,seq]")
    ids = torch.randint(0, WORDS, (3, 11))
    mask = (torch.arange(11) < torch.tensor([[11], [4], [8]])).long()
    expected = module(input_ids=ids, attention_mask=mask)
    logits, hidden = found.network(ids, mask)
    torch.testing.assert_close(logits, expected["logits"])
    torch.testing.assert_close(hidden, expected["hidden"][0])


def test_inputs_drawn_are_ones_that_the_network_can_take() -> None:
    found = captured(Text(), "input_ids=int64[batch,seq]", "attention_mask=int64[batch,seq]")
    ids, mask = found.draw({"batch": 40, "seq": 20}, torch.Generator().manual_seed(0))
    assert ids.shape == mask.shape == (40, 20)
    assert (int(ids.min()), int(ids.max())) == (0, WORDS - 1)
    assert mask[0].all()
    assert mask[1:, :15].all()
    assert not mask[1:, 15:].any()


def test_a_padding_mask_is_true_at_padding() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
            self.inner = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

        def forward(self, x: Tensor, src_key_padding_mask: Tensor) -> Tensor:
            return self.inner(x, src_key_padding_mask=src_key_padding_mask)

    found = captured(Tokens(), "x=float32[b,seq,8]", "src_key_padding_mask=bool[b,seq]")
    x, mask = found.draw({"b": 3, "seq": 20}, torch.Generator().manual_seed(0))
    assert not mask[0].any()
    assert not mask[1:, :15].any()
    assert mask[1:, 15:].all()
    assert found.network(x, mask).isfinite().all()


@pytest.mark.parametrize("rows", [2, -1])
def test_a_length_that_the_network_refuses_is_told(rows: int, tmp_path: Path) -> None:
    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(5, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.a(x).reshape(rows, x.shape[1], 4)

    found = captured(Rows(), "x=float32[2,seq=16,5]")
    assert found.dynamic_batch == (rows == -1)
    ready = make_exportable(found.network, found)
    write_onnx(ready, tmp_path / "rows.onnx", {})
    asked: list[tuple[int, int]] = []

    def network(x: Tensor, least: int = 0) -> Tensor:
        asked.append((x.shape[0], x.shape[1]))
        if x.shape[1] < least:
            raise IndexError("index 15 is out of bounds")
        return found.network(x)

    for least, unvaried in ((0, ()), (16, ("seq",))):
        verified = verify_outputs(
            tmp_path / "rows.onnx",
            partial(network, least=least),  # type: ignore[arg-type]
            ready,
            1e-4,
            seed=0,
        )
        assert verified.unvaried == unvaried
    first, last = (2, 2) if rows == 2 else (1, 3)
    assert asked == [(first, 16), (last, 12), (first, 16), (last, 12), (last, 16)]


def test_dictionary_in_and_dataclass_out(tmp_path: Path) -> None:
    module = Batch()
    found = captured(module, "batch.table=float32[n,5]", "batch.image=float32[n,3,6,6]")
    assert found.outputs == ("scores", "features_0")
    assert found.batch_name == "n"
    table, image = torch.randn(4, 5), torch.randn(4, 3, 6, 6)
    expected = module({"image": image, "table": table})
    torch.testing.assert_close(found.network(table, image)[0], expected.scores)
    session = exported(found, tmp_path / "batch.onnx")
    assert [item.shape for item in session.get_inputs()] == [["n", 5], ["n", 3, 6, 6]]


def test_inputs_in_order_and_an_input_that_is_an_output(tmp_path: Path) -> None:
    found = captured(Any2(), "a=float32[1,4]", "b=float32[1,4]", by_position=True)
    session = exported(found, tmp_path / "any.onnx")
    feed = {item.name: np.ones((3, 4), dtype=np.float32) for item in session.get_inputs()}
    assert (session.run(None, feed)[1] == 1).all()


def test_a_number_beside_a_named_batch_is_an_input_without_batch() -> None:
    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(4, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor, shift: Tensor) -> Tensor:
            return self.two(self.one(x + shift[0]).relu())

    found = captured(Shifted(), "shift=float32[3,4]", "x=float32[batch,4]")
    assert found.axes == ((None, None), ("batch", None))
    assert [tuple(item.shape) for item in found.inputs] == [(3, 4), (2, 4)]
    assert (found.batch_name, found.batch) == ("batch", 2)


def test_a_free_axis_is_tried_with_several_lengths_and_the_one_that_is_written() -> None:
    short = captured(Text(longest=20), "input_ids=int64[batch,seq]")
    assert short.inputs[0].shape == (2, 16)
    written = captured(Text(), "input_ids=int64[batch,seq=37]")
    assert written.inputs[0].shape == (2, 37)


def test_an_axis_that_the_network_fixes_is_told() -> None:
    class Fixed(Text):
        def forward(self, input_ids: Tensor) -> Tensor:  # type: ignore[override]
            return self.head(self.tokens(input_ids).view(-1, 16, WIDTH).mean(1))

    found = captured(Fixed(), "input_ids=int64[batch,seq=16]")
    assert found.axes == (("batch", None),)
    assert found.notes == ("the model fixes axis seq of input_ids: 16 ships",)


def test_programs_with_keywords_and_missing_arguments(tmp_path: Path) -> None:
    module = shaken(Text())
    ids, mask = torch.randint(0, WORDS, (2, 9)), torch.ones(2, 9, dtype=torch.long)
    batch, seq = torch.export.Dim("batch"), torch.export.Dim("seq", max=500)
    shapes = {"input_ids": {0: batch, 1: seq}, "attention_mask": {0: batch, 1: seq}}
    program = torch.export.export(
        module,
        (ids,),
        {"attention_mask": mask, "token_type_ids": None},
        dynamic_shapes={**shapes, "token_type_ids": None},
    )
    torch.export.save(program, tmp_path / "text.pt2")
    found = capture_program(torch.export.load(tmp_path / "text.pt2"))
    assert len(found.inputs) == 2
    assert found.dynamic_batch
    torch.testing.assert_close(found.network(ids, mask)[0], module(ids, mask)["logits"])
    exported(found, tmp_path / "text.onnx")


@pytest.mark.parametrize(
    ("module", "inputs", "error", "text"),
    [
        (Text, ["ids=int64[batch,seq]"], ConfigError, "--input ids: must be an input of the"),
        (Text, ["attention_mask=int64[b,s]"], ConfigError, "got none for input_ids"),
        (Batch, ["image=float32[1,3,6,6]"], ConfigError, "--input image: must be an input"),
        (
            Batch,
            ["batch.image=float32[1,3,6,6]"],
            ModelError,
            "rejects an input of shape batch.image",
        ),
        (Text, ["input_ids=float32[batch,seq]"], ModelError, "rejects an input of shape input_ids"),
    ],
)
def test_wrong_inputs(
    module: Callable[[], nn.Module], inputs: list[str], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        captured(module(), *inputs)


def test_hints_name_what_the_network_takes() -> None:
    with pytest.raises(ConfigError) as caught:
        captured(Text(), "ids=int64[batch,seq]")
    hint = "its forward takes input_ids, attention_mask, token_type_ids"
    assert caught.value.hint == hint


def test_nothing_but_tensors_leaves_a_graph() -> None:
    class Wrong(nn.Linear):
        def forward(self, x: Tensor) -> Any:
            return {"n": 3, "cache": object()}

    with pytest.raises(ModelError, match=r"must return tensors, got cache \(object\)"):
        capture(Wrong(3, 3), positional((torch.randn(2, 3),)))


def test_what_was_done_to_the_module_is_undone() -> None:
    module = Any2()
    captured(module, "a=float32[1,4]", "b=float32[1,4]", by_position=True)
    assert "forward" not in vars(module)
    assert len(module(torch.ones(1, 4), torch.ones(1, 4))) == 2


class Sentences(nn.Module):
    """Packed sequences of given lengths, all steps returned."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, 12)
        self.lstm = nn.LSTM(12, 10, batch_first=True, bidirectional=True)
        self.head = nn.Linear(20, 3)

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(self.words(ids), lengths, batch_first=True)
        steps, _ = nn.utils.rnn.pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        return self.head(steps)


def test_lengths_fit_the_sequences_and_sequences_have_any_length(tmp_path: Path) -> None:
    module = Sentences()
    found = captured(module, "ids=int64[batch,seq]", "lengths=int64[batch]")
    assert found.axes == (("batch", "seq"), ("batch",))
    ids, lengths = found.draw({"batch": 50, "seq": 8}, torch.Generator().manual_seed(0))
    assert ids.shape == (50, 8)
    assert lengths[0] == 8
    assert set(lengths.tolist()) == set(range(1, 9))
    assert lengths.tolist() == sorted(lengths.tolist(), reverse=True)
    torch.testing.assert_close(found.network(ids, lengths), module(ids, lengths))
    session = exported(found, tmp_path / "sentences.onnx")
    assert [item.shape for item in session.get_inputs()] == [["batch", "seq"], ["batch"]]


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
@pytest.mark.parametrize("batch_first", [True, False])
def test_recurrent_layers_keep_free_lengths(
    kind: type[nn.RNNBase], batch_first: bool, tmp_path: Path
) -> None:
    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = kind(6, 8, 2, batch_first=batch_first, bidirectional=True)
            self.head = nn.Linear(16, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = x if batch_first else x.transpose(0, 1)
            return self.head(self.layers(x)[0].reshape(-1, 16))

    module = Steps()
    found = captured(module, "x=float32[batch,seq,6]")
    assert found.axes == (("batch", "seq", None),)
    x = torch.randn(3, 11, 6)
    torch.testing.assert_close(found.network(x), module(x))
    session = exported(found, tmp_path / "steps.onnx")
    nodes = [
        node
        for node in onnx.load(tmp_path / "steps.onnx").graph.node
        if node.op_type == kind.__name__
    ]
    assert len(nodes) == 2, "one node for each layer, both ways in one"
    widths = [item.i for node in nodes for item in node.attribute if item.name == "hidden_size"]
    assert widths == [4, 4], "half of the hidden units"
    assert session.run(None, {session.get_inputs()[0].name: x.numpy()})[0].shape == (33, 3)


def test_a_graph_that_answers_something_else_is_refused() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(5, 4)

        def forward(self, x: Tensor) -> Tensor:
            # While it is captured, other code runs.
            return self.a(x) * (2.0 if torch.compiler.is_compiling() else 1.0)

    with pytest.raises(ModelError, match="must answer as the model does, got other values"):
        captured(Counting(), "x=float32[batch,5]")


def test_a_network_that_answers_at_random_is_told() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(5, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.a(x) + torch.rand_like(x[:, :1])

    assert RANDOM in captured(Noisy(), "x=float32[batch,5]").notes


def test_the_network_runs_once_before_it_is_captured() -> None:
    asked: list[tuple[int, ...]] = []

    class Counted(Text):
        def forward(self, input_ids: Tensor) -> Tensor:  # type: ignore[override]
            if not torch.compiler.is_compiling():
                asked.append(tuple(input_ids.shape))
            return self.head(self.tokens(input_ids)).mean(1)

    captured(Counted(), "input_ids=int64[batch,seq]")
    assert len(asked) == 1


def test_a_program_in_training_is_told_to_answer_at_random_and_keeps_its_statistics() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)).train()
    program = torch.export.export(module, (torch.randn(2, 3, 8, 8),))
    before = {name: item.clone() for name, item in program.state_dict.items()}
    assert capture_program(program).notes[-1] == RANDOM
    assert all(torch.equal(item, program.state_dict[name]) for name, item in before.items())


def test_a_folded_program_answers_as_the_program_does(monkeypatch: pytest.MonkeyPatch) -> None:
    module = nn.Sequential(weight_norm(nn.Linear(6, 8)), nn.ReLU(), nn.Linear(8, 2)).eval()
    program = torch.export.export(module, (torch.randn(2, 6),))
    notes = capture_program(program).notes
    assert any("weight norm folded" in note for note in notes)
    assert RANDOM not in notes
    original = folding._folded_value

    def doubled(*given: Any) -> nn.Parameter | None:
        value = original(*given)
        return None if value is None else nn.Parameter(2 * value)

    monkeypatch.setattr(folding, "_folded_value", doubled)
    with pytest.raises(ModelError, match="must answer as the model does, got other values"):
        capture_program(program)


def test_a_program_that_does_not_take_its_example_inputs_is_refused() -> None:
    module = nn.Linear(6, 8)
    program = torch.export.export(module, (torch.randn(2, 6),))
    program.example_inputs = ((torch.randn(2, 5),), {})
    with pytest.raises(ModelError, match="program: must run on the example inputs in the file"):
        capture_program(program)
