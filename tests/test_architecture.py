"""The layers and the house rules, read off the source.

A new module or package fails here until it is given its place in `LAYERS`, so that every one is
placed on purpose. Exceptions to a rule are listed with their reason; a list entry that is no
longer needed fails too.
"""

import ast
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "prunecli"

LAYERS = (
    ("errors", "records", "launch"),
    ("choices", "shares", "ranges"),
    ("timing", "tuning", "metric"),
    ("removal",),
    ("config",),
    ("parsing", "files", "progress", "compat", "runtime"),
    ("wishes", "sources", "crew"),
    ("loading",),
    ("tasks",),
    ("data",),
    ("graph",),
    ("importance",),
    ("selection",),
    ("surgery",),
    ("recovery", "export", "measure"),
    ("report",),
    ("pipeline",),
    ("__init__",),
    ("options", "endings"),
    ("cli",),
    ("__main__",),
)
"""Packages and modules from the bottom up. Each imports from those before it; those of one layer
do not know each other."""

INNER_IMPORTS = {
    "prunecli.__init__": "importing the package must not import torch",
    "prunecli.cli": "help must not import torch",
    "prunecli.pipeline.board": "TensorBoard only where it was asked for",
    "prunecli.data.opening": "pyarrow and datasets only where such data is read",
}

BROAD_HANDLERS = {
    "prunecli.crew": "BaseException: tells the other processes, and raises on",
    "prunecli.files": "BaseException: takes files back on Ctrl-C too, and raises on",
    "prunecli.loading.usercode": "the user's code may raise anything; it becomes a ModelError",
    "prunecli.pipeline.journal": "BaseException: notes how the run can go on, and raises on",
    "prunecli.pipeline.ledger": "BaseException: notes where a bug struck, and raises on",
}

PRINTING = {
    "prunecli.cli": "the command line",
    "prunecli.endings": "its last lines",
    "prunecli.progress": "shows progress on stderr",
}

BASES = {
    "Exception": "the root of the package's errors",
    "PrunecliError": "kinds of errors",
    "KeyboardInterrupt": "SIGTERM takes the way of Ctrl-C",
    "ValueError": "an error inside loading",
    "StrEnum": "choices",
    "Protocol": "contracts",
    "fx.Interpreter": "torch's way to run a graph node by node",
    "Stepper": "the same, with masks",
    "TorchFunctionMode": "torch's way to see every operator of a block",
    "torch.autograd.Function": "torch's way to write down a derivative",
}

MOST_LINES, MOST_FUNCTION_LINES = 400, 60

FLAGS_AS_PARAMETERS = {"prune"}
"""Commands: their parameters are the table of their flags, and are not counted as lines."""

# In pieces, because this file is searched as well.
MACHINE_PATHS = tuple("/" + rest for rest in ("work/", "tmp/venv", "tmp/w/", "root/", "opt/pypi"))


def modules() -> list[str]:
    """Dotted names of all modules, `__init__` spelt out."""
    paths = sorted(PACKAGE.rglob("*.py"))
    return [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths]


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(path_of(module).read_text(encoding="utf-8"))


def path_of(module: str) -> Path:
    return ROOT.joinpath(*module.split(".")).with_suffix(".py")


def place(module: str) -> str:
    """The entry of `LAYERS` that a module belongs to."""
    return module.split(".")[1]


def imports(module: str) -> Iterator[str]:
    """Modules of the package that a module imports, wherever in it."""
    known = set(modules())
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] == "prunecli":
                yield resolve(name, known)


def resolve(name: str, known: set[str]) -> str:
    """The module that `from a import b` (as `a.b`) reads."""
    if name in known:
        return name
    if f"{name}.__init__" in known:
        return f"{name}.__init__"
    return resolve(name.rpartition(".")[0], known)


@pytest.fixture(params=modules())
def module(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_every_module_has_its_place() -> None:
    listed = {name for layer in LAYERS for name in layer}
    assert {place(module) for module in modules()} == listed


def test_imports_go_down_only(module: str) -> None:
    height = {name: index for index, layer in enumerate(LAYERS) for name in layer}
    mine = place(module)
    for imported in imports(module):
        other = place(imported)
        allowed = other == mine or height[other] < height[mine]
        assert allowed, f"{module} imports {imported}, which does not stand below it"


def test_no_imports_in_a_circle() -> None:
    needs = {module: set(imports(module)) - {module} for module in modules()}
    while free := {module for module, others in needs.items() if not others & needs.keys()}:
        for module in free:
            del needs[module]
    # A package's __init__ offers what its modules define, and is in nobody's way.
    assert not needs, f"these import each other: {sorted(needs)}"


def test_imports_stand_at_the_top(module: str) -> None:
    inner = [
        node.lineno
        for function in functions(module)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert bool(inner) == (module in INNER_IMPORTS), f"imports inside functions: lines {inner}"


def test_no_relative_imports(module: str) -> None:
    for node in ast.walk(tree(module)):
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"line {node.lineno}"


def test_modules_and_functions_are_short(module: str) -> None:
    lines = path_of(module).read_text(encoding="utf-8").count("\n")
    assert lines <= MOST_LINES
    for function in functions(module):
        first = function.lineno
        if module == "prunecli.cli" and function.name in FLAGS_AS_PARAMETERS:
            first = function.body[0].lineno
        assert function.end_lineno is not None
        length = function.end_lineno - first + 1
        assert length <= MOST_FUNCTION_LINES, f"{function.name} has {length} lines"


def functions(module: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_modules_say_what_they_are_for(module: str) -> None:
    text = path_of(module).read_text(encoding="utf-8")
    docstring = ast.get_docstring(tree(module))
    assert docstring or not text.strip(), "a module's header says its stage"


def test_no_broad_handlers(module: str) -> None:
    broad = [
        node.lineno
        for node in ast.walk(tree(module))
        if isinstance(node, ast.ExceptHandler) and is_broad(node.type)
    ]
    assert bool(broad) == (module in BROAD_HANDLERS), f"lines {broad}"


def is_broad(caught: ast.expr | None) -> bool:
    if isinstance(caught, ast.Tuple):
        return any(map(is_broad, caught.elts))
    return caught is None or ast.unparse(caught) in ("Exception", "BaseException")


def test_only_the_command_line_and_progress_print(module: str) -> None:
    prints = [
        node.lineno
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("print", "typer.echo")
    ]
    assert bool(prints) == (module in PRINTING), f"lines {prints}"


def test_classes_inherit_no_implementation() -> None:
    found = {
        ast.unparse(base)
        for module in modules()
        for node in ast.walk(tree(module))
        if isinstance(node, ast.ClassDef)
        for base in node.bases
    }
    assert found == BASES.keys()


def tracked() -> list[Path]:
    done = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip("not in a git repository")
    return [ROOT / name for name in done.stdout.split("\0") if name]


def test_no_file_names_the_machine_it_was_made_on() -> None:
    for path in tracked():
        if path.is_file():
            content = path.read_bytes()
            for text in MACHINE_PATHS:
                assert text.encode() not in content, f"{path} holds {text}"
