"""A checkpoint runs no code unless the user allows it.

Every attack would create a marker file. Those in `LIVE`, and all pickles, are also loaded with
pickles allowed, where they must create it: the tests are not of duds.
"""

import contextlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from crafted import (
    NET_SOURCE,
    Touch,
    edit_json,
    plain_pickled,
    rewrite,
    save_program,
    torch_saved,
    trained,
)

from prunecli.config import ModelConfig
from prunecli.errors import CheckpointError, PrunecliError
from prunecli.loading import load_model
from prunecli.loading.pt2_text import (
    SuspiciousText,
    check_expression,
    check_guard,
    check_target,
    check_tree,
)

MODEL = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"
PROGRAM_HINT = "if you trust the file, add --allow-pickle: it can then run any code it holds"


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "marker"


def save_zip(path: Path, held: object) -> None:
    torch.save(held, path)


def save_legacy(path: Path, held: object) -> None:
    torch.save(held, path, _use_new_zipfile_serialization=False)


def save_plain(path: Path, held: object) -> None:
    path.write_bytes(plain_pickled(held))


PICKLES: list[Any] = [
    pytest.param(
        save_zip, "must hold only tensors and plain values, got a pickle that uses", id="zip"
    ),
    pytest.param(
        save_legacy, "must hold only tensors and plain values, got a pickle that uses", id="legacy"
    ),
    pytest.param(
        save_plain, "must be written by torch.save, got a plain Python pickle", id="plain"
    ),
]


@pytest.mark.parametrize("with_model", [False, True], ids=["alone", "with --model"])
@pytest.mark.parametrize(("save", "text"), PICKLES)
def test_pickles(
    tmp_path: Path,
    marker: Path,
    save: Callable[[Path, object], None],
    text: str,
    with_model: bool,
) -> None:
    path = tmp_path / "c.pth"
    (tmp_path / "net.py").write_text(NET_SOURCE)
    save(path, {"state_dict": trained().state_dict(), "extra": Touch(marker)})
    factory = f"{tmp_path / 'net.py'}:Net" if with_model else None
    with pytest.raises(CheckpointError) as caught:
        load_model(ModelConfig(path, factory))
    assert not marker.exists()
    assert text in caught.value.message
    assert caught.value.hint is not None
    assert "--allow-pickle: unpickling can run any code in it" in caught.value.hint
    # The same file does run code once that is allowed: the test is not of a dud.
    load_model(ModelConfig(path, f"{tmp_path / 'net.py'}:Net", allow_pickle=True))
    assert marker.exists()


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program with symbolic sizes, guards, and nested inputs and outputs."""
    path = tmp_path_factory.mktemp("honest") / "m.pt2"

    class Nested(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = trained()

        def forward(self, x: torch.Tensor, *, more: dict[str, torch.Tensor]) -> dict[str, Any]:
            y = torch.nn.functional.avg_pool2d(x, 2, ceil_mode=True)
            return {"out": self.net(x) + more["a b"], "all": [y.flatten(1)]}

    auto = torch.export.Dim.AUTO
    save_program(
        path,
        Nested(),
        torch.randn(2, 3, 8, 8),
        kwargs={"more": {"a b": torch.ones(1)}},
        dynamic_shapes={"x": {0: auto, 2: auto, 3: auto}, "more": {"a b": None}},
    )
    return path


def test_honest_program_passes(honest: Path) -> None:
    loaded = load_model(ModelConfig(honest))
    assert loaded.program is not None
    x = torch.randn(5, 3, 11, 9)
    out = loaded.program.module()(x, more={"a b": torch.zeros(1)})["out"]
    with torch.no_grad():
        assert torch.equal(out, trained()(x))


Members = dict[str, bytes]


def pickled_sample_inputs(members: Members, marker: Path) -> None:
    members["data/sample_inputs/model.pt"] = torch_saved(((Touch(marker),), {}))


def pickled_weight(members: Members, marker: Path) -> None:
    def change(config: Any) -> None:
        entry = config["config"]["net.conv.weight"]
        entry["use_pickle"] = True
        members[f"data/weights/{entry['path_name']}"] = torch_saved(Touch(marker))

    edit_json(members, WEIGHTS, change)


def add_constant(members: Members, name: str, data: bytes) -> None:
    entry = {**next(iter(json.loads(members[WEIGHTS])["config"].values()))}
    entry.update(path_name=name, use_pickle=True)
    members[f"data/constants/{name}"] = data
    edit_json(members, CONSTANTS, lambda config: config["config"].update(evil=entry))


def pickled_constant(members: Members, marker: Path) -> None:
    add_constant(members, "tensor_9", torch_saved(Touch(marker)))


def opaque_object(members: Members, marker: Path) -> None:
    add_constant(members, "opaque_obj_0", plain_pickled(Touch(marker)))


def legacy_weights(members: Members, marker: Path) -> None:
    members["data/weights/model.pt"] = torch_saved({"w": Touch(marker)})


def legacy_constants(members: Members, marker: Path) -> None:
    members["data/constants/model.pt"] = torch_saved({"w": Touch(marker)})


def code(marker: Path) -> str:
    return f"__import__('pathlib').Path({str(marker)!r}).touch()"


def size_expression(members: Members, marker: Path) -> None:
    def change(program: Any) -> None:
        for value in program["graph_module"]["graph"]["tensor_values"].values():
            for size in value["sizes"]:
                if "as_expr" in size:
                    size["as_expr"]["expr_str"] = code(marker)

    edit_json(members, MODEL, change)


def guard(members: Members, marker: Path) -> None:
    edit_json(members, MODEL, lambda program: program["guards_code"].append(code(marker)))


def add_node(members: Members, target: str, argument: str) -> None:
    node = {
        "target": target,
        "inputs": [{"name": "filename", "arg": {"as_string": argument}, "kind": 1}],
        "outputs": [{"as_tensor": {"name": "evil"}}],
        "metadata": {},
        "is_hop_single_tensor_return": None,
        "name": "evil",
    }

    def change(program: Any) -> None:
        graph = program["graph_module"]["graph"]
        graph["nodes"].append(node)
        graph["tensor_values"]["evil"] = next(iter(graph["tensor_values"].values()))

    edit_json(members, MODEL, change)


def file_operator(members: Members, marker: Path) -> None:
    add_node(members, "torch.ops.aten.from_file.default", str(marker))


def python_function(members: Members, marker: Path) -> None:
    add_node(members, "torch.os.system", f"touch {marker}")


def node_name(members: Members, marker: Path) -> None:
    members[MODEL] = members[MODEL].replace(b'"linear"', json.dumps(f"y; {code(marker)}").encode())


def string_input(members: Members, marker: Path) -> None:
    value = {"as_string": f"' + str({code(marker)}) + '"}
    edit_json(members, MODEL, lambda p: p["graph_module"]["graph"]["inputs"].append(value))


def output_structure(members: Members, marker: Path) -> None:
    tree = {
        "type": "collections.defaultdict",
        "context": {
            "default_factory_module": "antigravity",
            "default_factory_name": "fly",
            "dict_context": [],
        },
        "children_spec": [],
    }

    def change(program: Any) -> None:
        signature = program["graph_module"]["module_call_graph"][0]["signature"]
        signature["out_spec"] = json.dumps([1, tree])

    edit_json(members, MODEL, change)


def input_key(members: Members, marker: Path) -> None:
    key = f'x" + str({code(marker)}) + "'
    members["data/sample_inputs/model.pt"] = torch_saved(
        ((torch.randn(2, 3, 8, 8),), {"more": {key: torch.ones(1)}})
    )


def compiled_library(members: Members, marker: Path) -> None:
    members["data/aotinductor/model/evil.so"] = b"\x7fELF"


def second_program(members: Members, marker: Path) -> None:
    members["models/other.json"] = members[MODEL]


ARCHIVES: list[tuple[Callable[[Members, Path], None], str]] = [
    (pickled_sample_inputs, "sample inputs that are not plain tensors"),
    (pickled_weight, "the pickled object 'net.conv.weight'"),
    (pickled_constant, "the pickled object 'evil'"),
    (opaque_object, "the record 'data/constants/opaque_obj_0'"),
    (legacy_weights, "the record 'data/weights/model.pt'"),
    (legacy_constants, "the record 'data/constants/model.pt'"),
    (size_expression, "the size \"__import__('pathlib')"),
    (guard, "the guard \"__import__('pathlib')"),
    (file_operator, "the operator 'torch.ops.aten.from_file.default'"),
    (python_function, "the operator 'torch.os.system'"),
    (node_name, 'the name "y; __import__'),
    (string_input, "the name "),
    (output_structure, "the container type 'collections.defaultdict'"),
    (input_key, "the name "),
    (compiled_library, "the record 'data/aotinductor/model/evil.so'"),
    (second_program, "the record 'models/other.json'"),
]


@pytest.mark.parametrize(
    ("change", "text"), [pytest.param(c, t, id=c.__name__) for c, t in ARCHIVES]
)
def test_programs(
    tmp_path: Path,
    marker: Path,
    honest: Path,
    change: Callable[[Members, Path], None],
    text: str,
) -> None:
    path = tmp_path / "m.pt2"
    rewrite(honest, path, lambda members: change(members, marker))
    with pytest.raises(CheckpointError) as caught:
        load_model(ModelConfig(path))
    assert not marker.exists()
    assert "must hold only tensors and tensor operators, got " + text in caught.value.message
    assert caught.value.hint == PROGRAM_HINT


LIVE = [
    pickled_sample_inputs,
    pickled_weight,
    pickled_constant,
    opaque_object,
    legacy_weights,
    legacy_constants,
    size_expression,
]


@pytest.mark.parametrize("change", LIVE, ids=lambda change: change.__name__)
def test_programs_run_code_once_allowed(
    tmp_path: Path, marker: Path, honest: Path, change: Callable[[Members, Path], None]
) -> None:
    """The attacks above are real ones: torch's loader falls for them."""
    path = tmp_path / "m.pt2"
    rewrite(honest, path, lambda members: change(members, marker))
    # What the attack leaves behind need not be a working program.
    with contextlib.suppress(PrunecliError):
        load_model(ModelConfig(path, allow_pickle=True))
    assert marker.exists()


def test_older_format_behind_a_program(tmp_path: Path, marker: Path, honest: Path) -> None:
    """torch.export.load falls back to it when the program fails, and unpickles freely."""
    path = tmp_path / "m.pt2"

    def break_program(members: Members) -> None:
        edit_json(members, MODEL, lambda p: p["schema_version"].update(major=999))

    rewrite(honest, path, break_program)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("version", "8.8")
        archive.writestr("serialized_exported_program.json", "{}")
        archive.writestr("serialized_state_dict.pt", torch_saved({"w": Touch(marker)}))
    with pytest.raises(CheckpointError):
        load_model(ModelConfig(path))
    with pytest.raises(PrunecliError):
        load_model(ModelConfig(path, allow_pickle=True))
    assert not marker.exists()


@pytest.mark.parametrize(
    "text",
    [
        "4*s39",
        "Symbol('s53', positive=True, integer=True)",
        "Mul(Integer(48), Max(Integer(1), Add(Symbol('s53', positive=True), Integer(-2))))",
        "FloorDiv(Symbol('u0', integer=True), Integer(2))",
        "Eq(s0, 3)",
        "Float('1.5', precision=53)",
    ],
)
def test_sizes_that_torch_writes(text: str) -> None:
    check_expression(text)


@pytest.mark.parametrize(
    "text",
    [
        "print(1)",
        "().__class__",
        "s0.__class__",
        "[s0]",
        "lambda: 0",
        "f'{s0}'",
        "(x := 1)",
        "Symbol('os')",
        "Symbol('s0; import os')",
        "open",
        "S(1)",
        "sympify('1')",
        "Integer(2)(3)",
        "Symbol('s0', cls=print(1))",
        "s0 if s1 else s2",
        "1\n+1",
        "1" * 30_000,
        "(" * 500 + "1" + ")" * 500,
        7,
    ],
)
def test_sizes_that_torch_does_not_write(text: object) -> None:
    with pytest.raises(SuspiciousText):
        check_expression(text)


@pytest.mark.parametrize(
    "text",
    [
        "L['x'].size()[2] >= 3",
        "((-2) + L['x'].size()[2]) != 1",
        "L['args'][0].size()[0] % 4 == 0 and max(1, L['x'].storage_offset()) == 0",
    ],
)
def test_guards_that_torch_writes(text: str) -> None:
    check_guard(text)


@pytest.mark.parametrize(
    "text",
    [
        "L['x'].__class__",
        "L['x'].tofile('f')",
        "eval('1')",
        'L["a\' + b"] == 1',
        "[1 for _ in L]",
        "max(1, key=print)",
    ],
)
def test_guards_that_torch_does_not_write(text: str) -> None:
    with pytest.raises(SuspiciousText):
        check_guard(text)


@pytest.mark.parametrize(
    "text",
    [
        "torch.ops.aten.add.Tensor",
        "torch.ops.aten.einsum.default",
        "torch.ops.aten._native_batch_norm_legit.no_stats",
        "torch.ops.prims.convert_element_type.default",
        "torch.ops.higher_order.cond",
        "torch.sym_max",
        "_operator.floordiv",
    ],
)
def test_operators_that_compute(text: str) -> None:
    check_target(text)


@pytest.mark.parametrize(
    "text",
    [
        "torch.os.system",
        "torch.load",
        "torch.hub.load",
        "torch.ops.load_library",
        "torch.ops.aten.save.default",
        "torch.ops.aten.from_file.out",
        "torch.ops.aten.add",
        "torch.ops.aten.add.Tensor.__call__",
        "torch.ops.aten.add.__class__",
        "torch.ops.aten.nosuch.default",
        "torch.ops.image.write_file.default",
        "torch.ops.higher_order.print",
        "torch.ops.higher_order.inline_asm_elementwise",
        "_operator.methodcaller",
        "builtins.eval",
        "#custom:op",
        None,
    ],
)
def test_operators_that_do_more(text: object) -> None:
    with pytest.raises(SuspiciousText):
        check_target(text)


@pytest.mark.parametrize(
    "text",
    [
        "[2, {}]",
        "nonsense",
        '[1, {"type": "builtins.dict", "context": "[{\\"__enum__\\": 1}]", "children_spec": []}]',
        '[1, {"type": "builtins.dict", "context": "[\\"a\\\\\\"b\\"]", "children_spec": []}]',
        '[1, {"type": "collections.namedtuple", "context": "x", "children_spec": []}]',
        3,
    ],
)
def test_structures_that_torch_does_not_write(text: object) -> None:
    with pytest.raises(SuspiciousText):
        check_tree(text)
