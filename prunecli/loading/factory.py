"""Building the network from the user's own code.

Stage: loading. In: `FILE.py:factory`, `package.module:factory` or an architecture's name such as
`timm:resnet26d` (see `library`), and its arguments as text.
Out: an `nn.Module`. Never reads weights, never writes beside the user's files.
"""

import ast
import difflib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from prunecli.errors import ConfigError, ModelError
from prunecli.loading.library import LIBRARIES, library_factory
from prunecli.loading.usercode import user_code

SPEC_HINT = "e.g. --model net.py:build or --model torchvision.models:resnet18"
WORDS: Mapping[str, object] = {"true": True, "false": False, "none": None, "null": None}
"""Not Python, but what people write; as a plain string `false` would be true."""

Parameters = Mapping[str, inspect.Parameter]


def build_module(
    spec: str, args: Mapping[str, str], near: tuple[Path, ...]
) -> tuple[nn.Module, Parameters]:
    """Import the factory, call it, check what it returns.

    Args:
        spec: `FILE.py:factory`, `package.module:factory`, `timm:NAME` or `torchvision:NAME`.
        args: keyword arguments as text; see `parse_value`.
        near: folders to import from besides those already importable.

    Returns:
        The module, and the factory's parameters (empty where it does not tell), for hints.

    Raises:
        ConfigError: the factory cannot be found, or the arguments do not fit it.
        ModelError: the user's code raised, or returned something else than an `nn.Module`.
    """
    where, name = _split(spec)
    is_file = _is_file(where)
    folders = (Path(where).resolve().parent, *near) if is_file else near
    hint = "run this code on its own to find the cause; --model-arg key=value passes arguments"
    with user_code(f"--model {spec}", folders, hint):
        factory = _factory(spec, where, name, is_file)
        if isinstance(factory, nn.Module):
            built: object = factory
            parameters: Parameters = {}
        else:
            values = {key: parse_value(text) for key, text in args.items()}
            parameters = _check_arguments(spec, factory, values)
            built = factory(**values)
    return _check_module(spec, built), parameters


def _factory(spec: str, where: str, name: str, is_file: bool) -> Any:
    if where in LIBRARIES:
        found = library_factory(spec, where, name)
        if found is not None:
            return found
    return _found(f"--model {spec}", where, name, is_file)


def import_object(flag: str, spec: str) -> tuple[Any, Path | None]:
    """What the user's own code calls so: `FILE.py:name` or `package.module:name`.

    Args:
        flag: that it was given with, for messages.

    Returns:
        The object, and the folder that its code needs on `sys.path` while it runs.

    Raises:
        ConfigError: it cannot be found.
        ModelError: importing raised.
    """
    where, _, name = spec.rpartition(":")
    is_file = _is_file(where)
    folder = Path(where).resolve().parent if is_file else None
    hint = "run this code on its own to find the cause"
    with user_code(f"{flag} {spec}", () if folder is None else (folder,), hint):
        return _found(f"{flag} {spec}", where, name, is_file), folder


def _is_file(where: str) -> bool:
    return where.endswith(".py") or "/" in where or "\\" in where


def _found(said: str, where: str, name: str, is_file: bool) -> Any:
    """Args: said: the flag as it was given, for messages."""
    source = _import_file(said, Path(where)) if is_file else _import_module(said, where)
    return _attribute(said, source, name)


def parse_value(text: str) -> object:
    """A Python literal if `text` is one, `true/false/none` in any case, else the text itself."""
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def _split(spec: str) -> tuple[str, str]:
    where, colon, name = spec.rpartition(":")
    if not colon or not where or not all(part.isidentifier() for part in name.split(".")):
        raise ConfigError(
            f"--model: FILE.py:factory or package.module:factory is needed, got {spec!r}",
            f"add a colon and the function or class that builds the model, {SPEC_HINT}",
        )
    return where, name


def _import_file(said: str, path: Path) -> ModuleType:
    if not path.is_file():
        names = sorted(entry.name for entry in path.parent.glob("*.py"))
        close = difflib.get_close_matches(path.name, names, n=1)
        raise ConfigError(
            f"{said}: the file must exist, got no such file {path}",
            f"did you mean {path.parent / close[0]}?" if close else "check the path",
        )
    # A name of our own: the file's stem may be that of an installed or built-in module.
    name = f"_prunecli_model_{path.stem}"
    found = importlib.util.spec_from_file_location(name, path)
    if found is None or found.loader is None:
        raise ConfigError(f"{said}: a Python file is needed, got {path}", SPEC_HINT)
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module  # dataclasses and pickling look their module up there
    found.loader.exec_module(module)
    return module


def _import_module(said: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        if name == missing or name.startswith(f"{missing}."):
            raise ConfigError(
                f"{said}: the module must be importable, got no module named {missing!r}",
                f"install it, or give the file instead: {said.split()[0]} path/to/net.py:factory",
            ) from error
        raise


def _attribute(said: str, source: ModuleType, name: str) -> Any:
    found: Any = source
    for part in name.split("."):
        if not hasattr(found, part):
            raise ConfigError(
                f"{said}: the factory must exist, got no {part!r} in {_called(source)}",
                _suggest(found, part),
            )
        found = getattr(found, part)
    if not callable(found):
        raise ConfigError(
            f"{said}: the factory must be a function or a class, got {type(found).__name__}",
            _suggest(source, name),
        )
    return found


def _called(source: ModuleType) -> str:
    return source.__file__ or source.__name__


def _suggest(owner: Any, wanted: str) -> str:
    names = [
        name
        for name, value in vars(owner).items()
        if not name.startswith("_") and callable(value) and not isinstance(value, ModuleType)
    ]
    close = difflib.get_close_matches(wanted, names, n=3)
    if close:
        return f"did you mean {' or '.join(close)}?"
    # What the file itself defines, not what it imported.
    own = [name for name in names if getattr(vars(owner)[name], "__module__", "") == owner.__name__]
    if own:
        return f"it defines {', '.join(own[:8])}"
    return "it defines no function or class"


def _check_arguments(
    spec: str, factory: Callable[..., object], values: Mapping[str, object]
) -> Parameters:
    try:
        signature = inspect.signature(factory)
    except (ValueError, TypeError):
        return {}  # some classes in C do not tell; the call itself will
    parameters = signature.parameters
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    named = [
        p
        for p in parameters.values()
        if p.kind in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    ]
    names = [p.name for p in named]
    for key in values:
        if key not in names and not takes_any:
            takes = f"it takes {', '.join(names)}" if names else "it takes no arguments"
            raise ConfigError(
                f"--model-arg {key}: {spec} must take it, got no such argument", takes
            )
    needed = [p.name for p in named if p.default is inspect.Parameter.empty]
    missing = [name for name in needed if name not in values]
    if missing:
        flags = " ".join(f"--model-arg {name}=..." for name in missing)
        raise ConfigError(
            f"--model {spec}: every argument without a default must be given, "
            f"got none for {', '.join(missing)}",
            f"add {flags}",
        )
    return parameters


def _check_module(spec: str, built: object) -> nn.Module:
    if isinstance(built, torch.jit.ScriptModule):
        raise ModelError(
            f"--model {spec}: must return a plain nn.Module, got a TorchScript module",
            "return the Python model, before torch.jit.script or trace",
        )
    if not isinstance(built, nn.Module):
        raise ModelError(
            f"--model {spec}: must return an nn.Module, got {type(built).__name__}",
            "name a function or a class that returns only the model",
        )
    return built
