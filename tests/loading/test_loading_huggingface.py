"""Folders with config.json and safetensors: what is built, which inputs are known, what fails."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from prunecli.config import Axis, InputSpec, ModelConfig
from prunecli.errors import CheckpointError, ConfigError, MissingExtraError, ModelError
from prunecli.graph.capture import capture, fitting_example
from prunecli.graph.inputs import of_specs
from prunecli.loading import LoadedModel, load_model
from prunecli.loading.huggingface import load_folder, told_by

transformers_only = pytest.mark.skipif(
    find_spec("transformers") is None, reason="transformers is not installed"
)
timm_only = pytest.mark.skipif(find_spec("timm") is None, reason="timm is not installed")

BERT = {
    "vocab_size": 60,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 40,
}


def library() -> Any:
    from prunecli.compat import declare_missing_operators

    declare_missing_operators()
    import transformers

    return transformers


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    transformers = library()
    torch.manual_seed(0)
    model = transformers.BertForSequenceClassification(transformers.BertConfig(**BERT))
    model.save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


def tokens(name: str, axis: str = "seq") -> InputSpec:
    return InputSpec(name, "int64", (Axis("batch", None), Axis(axis, None)))


def loaded(path: Path) -> LoadedModel:
    return load_model(ModelConfig(path))


@transformers_only
def test_text_network_is_built_with_its_weights(bert: Path) -> None:
    found = loaded(bert)
    assert found.module is not None
    assert found.notes == ("built as transformers.BertForSequenceClassification",)
    axes = (Axis("batch", None), Axis("seq", 16))  # of 40 positions
    names = ("input_ids", "attention_mask")
    assert found.inputs == tuple(InputSpec(name, "int64", axes) for name in names)
    stored = load_file(bert / "model.safetensors")
    own = found.module.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in stored.items())
    again = library().BertForSequenceClassification.from_pretrained(bert).eval()
    ids = torch.randint(0, 60, (2, 9))
    with torch.no_grad():
        assert torch.equal(found.module(input_ids=ids).logits, again(input_ids=ids).logits)


@transformers_only
@pytest.mark.parametrize(
    ("kind", "arguments", "expected"),
    [
        (
            "ViT",
            {"image_size": 8, "patch_size": 4, "num_channels": 1},
            [("pixel_values", "float32", ("batch", 1, 8, 8))],
        ),
        ("Wav2Vec2", {}, [("input_values", "float32", ("batch", "time=16000"))]),
        (
            "T5",
            {"d_model": 16, "d_ff": 16, "num_layers": 1, "num_heads": 2, "vocab_size": 30},
            [
                ("input_ids", "int64", ("batch", "seq")),
                ("attention_mask", "int64", ("batch", "seq")),
                ("decoder_input_ids", "int64", ("batch", "target")),
            ],
        ),
        (
            "Whisper",
            {"d_model": 16, "max_source_positions": 10, "num_mel_bins": 4, "vocab_size": 30,
             "pad_token_id": 0},
            [
                ("input_features", "float32", ("batch", 4, 20)),
                ("decoder_input_ids", "int64", ("batch", "target")),
            ],
        ),
        (
            "CLIP",
            {"vision_config": {"image_size": 32, "hidden_size": 16, "intermediate_size": 16,
                               "num_hidden_layers": 1, "num_attention_heads": 2},
             "text_config": {"vocab_size": 30, "hidden_size": 16, "intermediate_size": 16,
                             "num_hidden_layers": 1, "num_attention_heads": 2}},
            [
                ("pixel_values", "float32", ("batch", 3, 32, 32)),
                ("input_ids", "int64", ("batch", "seq")),
                ("attention_mask", "int64", ("batch", "seq")),
            ],
        ),
    ],
)  # fmt: skip
def test_inputs_come_from_the_configuration(
    kind: str, arguments: dict[str, Any], expected: list[Any], tmp_path: Path
) -> None:
    transformers = library()
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
             "intermediate_size": 16, "encoder_layers": 1, "decoder_layers": 1,
             "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 16,
             "decoder_ffn_dim": 16, "num_conv_pos_embeddings": 4,
             "num_conv_pos_embedding_groups": 2}  # fmt: skip
    config = getattr(transformers, f"{kind}Config")
    plain = {} if kind in ("T5", "CLIP") else small
    getattr(transformers, f"{kind}Model")(config(**{**plain, **arguments})).save_pretrained(
        tmp_path / "net"
    )
    found = loaded(tmp_path / "net").inputs
    assert [spec.in_words() for spec in found] == [
        f"{name}={dtype}[{','.join(map(str, axes))}]" for name, dtype, axes in expected
    ]


@transformers_only
def test_weights_that_are_missing_or_do_not_fit_are_no_random_numbers(bert: Path) -> None:
    stored = load_file(bert / "model.safetensors")
    less = {name: tensor for name, tensor in stored.items() if not name.startswith("classifier")}
    save_file(less, bert / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        CheckpointError, match=r"got 2 missing .*classifier\.bias, classifier\.weig"
    ):
        loaded(bert)
    other = {**stored, "classifier.weight": torch.zeros(5, 16)}
    save_file(other, bert / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"weights that fit, got 1 .*: classifier\.weight"):
        loaded(bert)


@transformers_only
def test_code_that_lies_on_the_hub_is_not_run(bert: Path) -> None:
    config = json.loads((bert / "config.json").read_text())
    config["architectures"] = ["MyOwnModel"]
    config["auto_map"] = {"AutoModel": "modeling.MyOwnModel"}
    (bert / "config.json").write_text(json.dumps(config))
    (bert / "modeling.py").write_text("raise SystemExit('was run')")
    with pytest.raises(CheckpointError, match=r"must be one of transformers .*, got MyOwnModel"):
        loaded(bert)


@timm_only
def test_folder_of_timm(tmp_path: Path) -> None:
    import timm

    torch.manual_seed(0)
    model = timm.create_model("resnet10t", num_classes=3).eval()
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    config = {"architecture": "resnet10t", "num_classes": 3,
              "pretrained_cfg": {"input_size": [3, 64, 64]}}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = loaded(tmp_path)
    assert [spec.in_words() for spec in found.inputs] == ["x=float32[batch,3,64,64]"]
    x = torch.randn(1, 3, 64, 64)
    assert found.module is not None
    with torch.no_grad():
        assert torch.equal(found.module(x), model(x))


def test_broken_folders(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="must be readable JSON"):
        load_folder(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="must hold an object, got list"):
        load_folder(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"must hold a \.safetensors file"):
        load_folder(tmp_path)
    with pytest.raises(ConfigError, match=r"a folder with config\.json needs none, got a:b"):
        load_model(ModelConfig(tmp_path, "a:b"))


def test_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["BertModel"]}')
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    monkeypatch.setattr("prunecli.loading.huggingface.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError) as caught:
        load_folder(tmp_path)
    assert caught.value.hint == "install it with: pip install 'prunecli[transformers]'"


@transformers_only
def test_what_a_folder_tells_of_texts_and_classes(tmp_path: Path) -> None:
    transformers = library()
    named = {"id2label": {0: "up", 1: "down"}, "label2id": {"up": 0, "down": 1}}
    torch.manual_seed(0)
    bert = transformers.BertForSequenceClassification(transformers.BertConfig(**BERT, **named))
    bert.save_pretrained(tmp_path / "bert")
    found = load_folder(tmp_path / "bert").folder
    assert found.classes == ("up", "down")
    assert found.longest == 40
    assert [spec.name for spec in found.optional] == ["token_type_ids"]
    # Positions are counted from behind padding's.
    config = transformers.RobertaConfig(**BERT, type_vocab_size=1, pad_token_id=1)
    transformers.RobertaForSequenceClassification(config).save_pretrained(tmp_path / "roberta")
    found = load_folder(tmp_path / "roberta").folder
    assert found.longest == 38
    assert found.optional == ()
    # The same of a folder whose network is not built; nothing of one without a network.
    assert told_by(tmp_path / "bert").classes == ("up", "down")
    assert told_by(tmp_path).classes == ()


@transformers_only
@pytest.mark.parametrize(("positions", "tried"), [(22, 16), (12, 10)])
def test_networks_with_few_positions_are_tried_with_as_many(
    positions: int, tried: int, tmp_path: Path
) -> None:
    """Padding has no position where others count from behind it, so that a text of any length that
    is nothing but padding passes, and no other."""
    transformers = library()
    own = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.RobertaConfig(
        vocab_size=20, intermediate_size=32, max_position_embeddings=positions, **own
    )
    transformers.RobertaForSequenceClassification(config).save_pretrained(tmp_path)
    model = load_model(ModelConfig(tmp_path))
    assert model.module is not None
    assert [spec.axes[1] for spec in model.inputs] == [Axis("seq", tried)] * 2
    example, answer = fitting_example(model.module, of_specs(model.inputs))
    captured = capture(model.module, example, answer)
    assert captured.inputs[0].shape[1] == tried
    with torch.no_grad():
        captured.network(*captured.inputs)


@transformers_only
def test_a_length_that_only_padding_passes_is_refused(tmp_path: Path) -> None:
    transformers = library()
    own = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.RobertaConfig(
        vocab_size=20, intermediate_size=32, max_position_embeddings=22, **own
    )
    net = transformers.RobertaForSequenceClassification(config)
    specs = (tokens("input_ids"), tokens("attention_mask"))
    example, answer = fitting_example(net, of_specs(specs))
    with pytest.raises(ModelError, match=r"must take all indices at \(2, 64\)") as caught:
        capture(net, example, answer)
    assert caught.value.hint is not None
    assert "--input" in caught.value.hint
