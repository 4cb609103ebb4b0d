"""Which strings an exported program may contain.

Stage: loading. In: strings and JSON from a `.pt2` archive. Out: nothing, or a `SuspiciousText`.
Never evaluates anything.

Why: torch turns these strings into code. Symbolic sizes go through `sympy.sympify` (an `eval`),
guards and node names into Python source that is executed, operator targets into attribute
look-ups from the `torch` module, tree specifications into imports. torch.export.save writes few
forms of each, so everything else is refused; what a new torch version adds fails closed.
"""

import ast
import json
import keyword
import re

import torch

OPERATOR_NAMESPACES = frozenset({"aten", "prims", "torchvision", "quantized_decomposed"})
"""Pure tensor operators. Others exist that read and write files (`image::write_file`)."""

FILE_ARGUMENTS = frozenset({"filename", "file", "path"})
"""An operator with such a string argument touches files (`aten::save`, `aten::from_file`)."""

HIGHER_ORDER = frozenset(
    {
        "associative_scan",
        "cond",
        "map_impl",
        "scan",
        "while_loop",
        "wrap_with_autocast",
        "wrap_with_set_grad_enabled",
    }
)
"""Operators over sub-graphs, whose nodes are checked like all others."""

SCALAR_TARGETS = frozenset(
    {
        *(f"_operator.{name}" for name in ("add", "sub", "mul", "floordiv", "truediv", "mod")),
        *(f"_operator.{name}" for name in ("pow", "neg", "pos", "eq", "ne", "lt", "le", "gt")),
        *(f"_operator.{name}" for name in ("ge", "and_", "or_", "lshift", "rshift")),
        *(f"torch.sym_{name}" for name in ("not", "int", "float", "ite", "max", "min", "sqrt")),
        "torch.sym_sum",
        "math.trunc",
        "math.ceil",
        "math.floor",
    }
)
"""Arithmetic on sizes."""

EXPRESSION_CALLS = frozenset(
    {
        *("Symbol", "Integer", "Float", "Rational", "Add", "Mul", "Pow", "Max", "Min", "Abs"),
        *("Eq", "Ne", "Lt", "Le", "Gt", "Ge", "Equality", "Unequality", "StrictLessThan"),
        *("LessThan", "StrictGreaterThan", "GreaterThan", "And", "Or", "Not", "Piecewise"),
        *("ExprCondPair", "Tuple", "FloorDiv", "ModularIndexing", "Where", "PythonMod", "Mod"),
        *("CleanDiv", "CeilToInt", "FloorToInt", "CeilDiv", "LShift", "RShift", "PowByNatural"),
        *("FloatPow", "FloatTrueDiv", "IntTrueDiv", "IsNonOverlappingAndDenseIndicator"),
        *("TruncToFloat", "TruncToInt", "RoundToInt", "RoundDecimal", "ToFloat", "Identity"),
        *("max", "min", "abs", "floor", "ceiling", "ceil", "trunc", "sqrt"),
    }
)
"""Functions that symbolic sizes are written with."""

SYMBOL = re.compile(r"(?:s|u|zf|zuf)\d{1,9}")
CONSTANT_NAMES = frozenset({"true", "false", "oo", "int_oo"})
GUARD_ATTRIBUTES = frozenset({"size", "stride", "storage_offset", "shape", "ndim", "dim"})
PLAIN = re.compile(r"[\w.\-+/: ]*")
"""No quotes, brackets, backslashes or line breaks: cannot leave a string or start a call."""

NUMBER_TEXT = re.compile(r"-?\d+(\.\d*)?(e[+-]?\d+)?")
TREE_TYPES = frozenset(
    {None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"}
)
"""Containers of inputs and outputs; loading others would import modules the file names."""

LONGEST = 20_000
"""Longest expression or guard, in characters."""

ARITHMETIC = (
    *(ast.Expression, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.Load),
    *(ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.USub, ast.UAdd),
    *(ast.And, ast.Or, ast.Not, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE),
    *(ast.BitAnd, ast.BitOr, ast.Invert, ast.LShift, ast.RShift, ast.keyword),
)


class SuspiciousText(ValueError):
    """A string that torch.export.save would not have written."""


def _refuse(what: str, text: object) -> SuspiciousText:
    shown = repr(text)
    return SuspiciousText(f"{what} {shown[:80]}{'...' if len(shown) > 80 else ''}")


def check_plain(text: object) -> None:
    """Names of parameters and modules.

    Raises:
        SuspiciousText: a character that could matter in source code.
    """
    if not isinstance(text, str) or PLAIN.fullmatch(text) is None:
        raise _refuse("the name", text)


def check_identifier(text: object) -> None:
    """Names that become Python variables.

    Raises:
        SuspiciousText: not a name, or a keyword.
    """
    if not isinstance(text, str) or not text.isidentifier() or keyword.iskeyword(text):
        raise _refuse("the name", text)


def check_free(text: object) -> None:
    """Text that only people read (stack traces), and string arguments of operators.

    Raises:
        SuspiciousText: control characters other than line breaks and tabs.
    """
    if not isinstance(text, str) or any(ord(c) < 32 and c not in "\n\t" for c in text):
        raise _refuse("the text", text)


def check_target(text: object) -> None:
    """What a node calls.

    Raises:
        SuspiciousText: neither a known kind of tensor operator nor arithmetic on sizes.
    """
    if not isinstance(text, str):
        raise _refuse("the operator", text)
    if text in SCALAR_TARGETS:
        return
    parts = text.split(".")
    if len(parts) == 4 and parts[:3] == ["torch", "ops", "higher_order"]:
        if parts[3] not in HIGHER_ORDER:
            raise _refuse("the operator", text)
        return
    if len(parts) != 5 or parts[:2] != ["torch", "ops"] or parts[2] not in OPERATOR_NAMESPACES:
        raise _refuse("the operator", text)
    found: object = torch.ops
    for part in parts[2:]:
        found = getattr(found, part, None)
    if not isinstance(found, torch._ops.OpOverload):
        raise _refuse("the operator", text)
    if any(a.name in FILE_ARGUMENTS and "str" in str(a.type) for a in found._schema.arguments):
        raise _refuse("the operator", text)


def check_expression(text: object) -> None:
    """A symbolic size, e.g. `Add(Symbol('s53', positive=True, integer=True), Integer(-2))`.

    Raises:
        SuspiciousText: anything but arithmetic, known functions and symbols such as `s53`.
    """
    for node in _parsed(text):
        if isinstance(node, ast.Call):
            named = isinstance(node.func, ast.Name) and node.func.id in EXPRESSION_CALLS
            if not named or any(not isinstance(k.value, ast.Constant) for k in node.keywords):
                raise _refuse("the size", text)
        elif isinstance(node, ast.Name):
            known = node.id in EXPRESSION_CALLS or node.id in CONSTANT_NAMES
            if not known and SYMBOL.fullmatch(node.id) is None:
                raise _refuse("the size", text)
        elif isinstance(node, ast.Constant):
            # The only strings are a symbol's name and a float's digits.
            value = node.value
            if isinstance(value, str):
                if SYMBOL.fullmatch(value) is None and NUMBER_TEXT.fullmatch(value) is None:
                    raise _refuse("the size", text)
            elif not isinstance(value, int | float):
                raise _refuse("the size", text)
        elif not isinstance(node, ARITHMETIC):
            raise _refuse("the size", text)


def check_guard(text: object) -> None:
    """A condition on the inputs, e.g. `L['x'].size()[2] >= 3`.

    Raises:
        SuspiciousText: anything but arithmetic on the inputs' sizes.
    """
    for node in _parsed(text):
        if isinstance(node, ast.Call):
            by_name = isinstance(node.func, ast.Name) and node.func.id in EXPRESSION_CALLS
            by_attribute = isinstance(node.func, ast.Attribute)
            if not (by_name or by_attribute) or node.keywords:
                raise _refuse("the guard", text)
        elif isinstance(node, ast.Attribute):
            if node.attr not in GUARD_ATTRIBUTES:
                raise _refuse("the guard", text)
        elif isinstance(node, ast.Name):
            if node.id != "L" and node.id not in EXPRESSION_CALLS:
                raise _refuse("the guard", text)
        elif isinstance(node, ast.Constant):
            if isinstance(node.value, str):
                check_plain(node.value)
            elif not isinstance(node.value, int | float):
                raise _refuse("the guard", text)
        elif not isinstance(node, (*ARITHMETIC, ast.Subscript)):
            raise _refuse("the guard", text)


def _parsed(text: object) -> list[ast.AST]:
    if not isinstance(text, str) or len(text) > LONGEST or "\n" in text:
        raise _refuse("the expression", text)
    try:
        return list(ast.walk(ast.parse(text, mode="eval")))
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise _refuse("the expression", text) from error


def check_tree(text: object) -> None:
    """How inputs or outputs are nested, as torch writes it: JSON inside a JSON string.

    Raises:
        SuspiciousText: containers other than tuples, lists and dicts, or odd keys.
    """
    if not isinstance(text, str):
        raise _refuse("the input structure", text)
    try:
        parsed = json.loads(text)
    except ValueError as error:
        raise _refuse("the input structure", text) from error
    if not isinstance(parsed, list) or len(parsed) != 2 or parsed[0] != 1:
        raise _refuse("the input structure", text)
    _check_tree_node(parsed[1])


def _check_tree_node(node: object) -> None:
    if not isinstance(node, dict) or set(node) != {"type", "context", "children_spec"}:
        raise _refuse("the input structure", node)
    kind, context, children = node["type"], node["context"], node["children_spec"]
    if not isinstance(kind, str | None) or kind not in TREE_TYPES or not isinstance(children, list):
        raise _refuse("the container type", kind)
    if context is not None:
        try:
            keys = json.loads(context)
        except (TypeError, ValueError) as error:
            raise _refuse("the container keys", context) from error
        for key in keys if isinstance(keys, list) else [] if keys is None else [None]:
            if not isinstance(key, int):
                check_plain(key)
    for child in children:
        _check_tree_node(child)
