"""Architectures by name, from the libraries that hold most of them.

Stage: loading. In: `timm:resnet26d` or `torchvision:resnet50`. Out: a function that builds the
network with random weights. Downloads nothing that the user's arguments do not ask for.
"""

import difflib
import importlib
import inspect
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

from prunecli.compat import declare_missing_operators
from prunecli.errors import ConfigError, MissingExtraError

LIBRARIES = ("timm", "torchvision")
"""Before the colon exactly these; `torchvision.models:resnet50` is a module as any other."""

Build = Callable[..., object]


def library_factory(spec: str, library: str, name: str) -> Build | None:
    """What builds `name` without trained weights.

    Returns:
        `None` if the name is no architecture but something else in the package: a factory as
        any other, such as `timm:create_model`.

    Raises:
        MissingExtraError: the library is not installed.
        ConfigError: it has no such name.
    """
    if find_spec(library) is None:
        raise MissingExtraError(library, extra=library)
    declare_missing_operators()
    package = importlib.import_module(library)
    build = _timm(package, name) if library == "timm" else _torchvision(package, name)
    if build is not None:
        return _with_classes(build)
    if hasattr(package, name):
        return None
    names = package.list_models() if library == "timm" else package.models.list_models()
    close = difflib.get_close_matches(name, names, n=3)
    raise ConfigError(
        f"--model {spec}: must be an architecture of {library}, got no {name!r}",
        f"did you mean {' or '.join(f'{library}:{other}' for other in close)}?"
        if close
        else f"{library} lists its {len(names)} names with list_models()",
    )


def _with_classes(build: Build) -> Build:
    """`build`, with the argument that most people need in sight, for hints."""

    def build_for(*, num_classes: int | None = None, **others: object) -> object:
        if num_classes is not None:
            others["num_classes"] = num_classes
        return build(**others)

    return build_for


def _timm(timm: Any, name: str) -> Build | None:
    if not timm.is_model(name):
        return None
    return partial(timm.create_model, name, pretrained=False)


def _torchvision(torchvision: Any, name: str) -> Build | None:
    models = torchvision.models
    if name.lower() not in models.list_models():
        return None
    # Segmentation and detection would fetch trained weights for a part of the network.
    taken = inspect.signature(models.get_model_builder(name)).parameters
    none = {key: None for key in ("weights", "weights_backbone") if key in taken}
    return partial(models.get_model, name, **none)
