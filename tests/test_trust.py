"""What a run's folder may have run, and that it is said before."""

from pathlib import Path

import pytest

from prunecli.config import DataConfig, ModelConfig, RunConfig, TaskConfig
from prunecli.errors import ConfigError
from prunecli.pipeline.trust import check_code
from prunecli.progress import SilentReporter
from prunecli.removal import Removal

RUN = Path("net.run")


class Saying(SilentReporter):
    """Remembers what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def begun(factory: str | None, task: str | None = None, *, pickled: bool = False) -> RunConfig:
    model = ModelConfig(Path("net.pt"), factory, {"width": "8"} if factory else {}, None, pickled)
    data = DataConfig(Path("d"), task=TaskConfig(custom=task) if task else None)
    return RunConfig(model, Removal(), data=data)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (begun("net.py:net"), ["runs the code of: --model net.py:net --model-arg width=8"]),
        (begun("timm:vit"), ["runs the code of: --model timm:vit --model-arg width=8"]),
        (begun(None, "own.py:Task"), ["runs the code of: --task own.py:Task"]),
        (begun(None, pickled=True), ["runs the code of: --allow-pickle net.pt"]),
        (begun(None), []),
    ],
)
def test_code_is_said(config: RunConfig, said: list[str]) -> None:
    reporter = Saying()
    check_code(RUN, config, None, None, reporter)
    assert reporter.said == said


@pytest.mark.parametrize("spec", ["os:system", "torchvision.models:resnet18", "a/b:net"])
def test_code_of_packages_must_be_named_again(spec: str) -> None:
    reporter = Saying()
    with pytest.raises(ConfigError, match=f"must be named by you, got {spec} from the folder"):
        check_code(RUN, begun(spec), None, None, reporter)
    with pytest.raises(ConfigError) as caught:
        check_code(RUN, begun(None, spec), None, None, reporter)
    assert str(caught.value.hint).endswith(f"--task {spec}")
    assert reporter.said == []
    check_code(RUN, begun(spec, spec), spec, spec, reporter)
    assert len(reporter.said) == 1


@pytest.mark.parametrize(
    ("spec", "given"),
    [("os:system", "os:popen"), ("net.py:net", "net.py:other"), (None, "net.py:net")],
)
def test_other_code_than_it_began_with_is_refused(spec: str | None, given: str) -> None:
    with pytest.raises(ConfigError, match=f"must be what net.run began with, .*, got {given}"):
        check_code(RUN, begun(spec), given, None, Saying())


def test_a_file_may_be_written_in_several_ways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    check_code(RUN, begun(f"{tmp_path}/net.py:net"), "./net.py:net", None, Saying())
