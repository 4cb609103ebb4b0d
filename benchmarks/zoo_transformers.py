"""transformers: common architectures in small random configurations.

Small, but with several layers, at least four heads and a feed-forward part of the usual
proportion, so that half of the MACs can go in the usual ways.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Generator, nn

from zoo_entry import Entry, Feed, Inputs, images, package

WORDS = 1000
"""Vocabulary."""

TOKENS = 32
"""Length of text inputs."""

TEXT = {
    "vocab_size": WORDS,
    "hidden_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 512,
    "max_position_embeddings": 64,
}

VISION = {
    "image_size": 64,
    "patch_size": 8,
    "hidden_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 512,
}


def tokens(model: nn.Module, batch: int, generator: Generator) -> Inputs:
    """Token ids alone."""
    return (torch.randint(3, WORDS, (batch, TOKENS), generator=generator),)


def masked_tokens(model: nn.Module, batch: int, generator: Generator) -> Inputs:
    """Token ids and an attention mask with some padding at the end, by position."""
    lengths = torch.randint(TOKENS // 2, TOKENS + 1, (batch, 1), generator=generator)
    mask = (torch.arange(TOKENS) < lengths).to(torch.int64)
    return (torch.randint(3, WORDS, (batch, TOKENS), generator=generator), mask)


@dataclass(frozen=True)
class _Kind:
    """Class and configuration, by name, with the configuration's arguments."""

    model: str
    config: str
    arguments: dict[str, Any]
    feed: Feed
    part: Callable[[nn.Module], nn.Module] = lambda model: model


def _build(kind: _Kind) -> nn.Module:
    transformers = package("transformers")
    config = getattr(transformers, kind.config)(**kind.arguments)
    return kind.part(getattr(transformers, kind.model)(config))


_KINDS = {
    "bert": _Kind("BertForSequenceClassification", "BertConfig", TEXT, masked_tokens),
    "roberta": _Kind("RobertaForSequenceClassification", "RobertaConfig", TEXT, masked_tokens),
    "distilbert": _Kind(
        "DistilBertForSequenceClassification",
        "DistilBertConfig",
        {
            "vocab_size": WORDS,
            "dim": 128,
            "n_layers": 3,
            "n_heads": 4,
            "hidden_dim": 512,
            "max_position_embeddings": 64,
        },
        masked_tokens,
    ),
    "albert": _Kind(
        "AlbertForSequenceClassification",
        "AlbertConfig",
        TEXT | {"embedding_size": 64},
        masked_tokens,
    ),
    "deberta_v2": _Kind(
        "DebertaV2ForSequenceClassification",
        "DebertaV2Config",
        TEXT | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
        masked_tokens,
    ),
    "electra": _Kind(
        "ElectraForSequenceClassification",
        "ElectraConfig",
        TEXT | {"embedding_size": 64},
        masked_tokens,
    ),
    "vit": _Kind("ViTForImageClassification", "ViTConfig", VISION, images(3, 64, 64)),
    "swin": _Kind(
        "SwinForImageClassification",
        "SwinConfig",
        {
            "image_size": 64,
            "patch_size": 2,
            "embed_dim": 32,
            "depths": [2, 2, 2],
            "num_heads": [2, 4, 8],
            "window_size": 4,
        },
        images(3, 64, 64),
    ),
    "convnextv2": _Kind(
        "ConvNextV2ForImageClassification",
        "ConvNextV2Config",
        {"image_size": 64, "depths": [2, 2, 2, 2], "hidden_sizes": [32, 64, 128, 256]},
        images(3, 64, 64),
    ),
    "beit": _Kind(
        "BeitForImageClassification",
        "BeitConfig",
        VISION | {"use_relative_position_bias": True},
        images(3, 64, 64),
    ),
    "clip_vision": _Kind("CLIPVisionModel", "CLIPVisionConfig", VISION, images(3, 64, 64)),
    "clip_text": _Kind(
        "CLIPTextModel", "CLIPTextConfig", TEXT | {"eos_token_id": 2, "pad_token_id": 1}, tokens
    ),
    "wav2vec2": _Kind(
        "Wav2Vec2ForSequenceClassification",
        "Wav2Vec2Config",
        {
            "hidden_size": 128,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "intermediate_size": 512,
            "conv_dim": (64,) * 7,
            "num_conv_pos_embeddings": 16,
            "num_conv_pos_embedding_groups": 4,
        },
        images(8000),
    ),
    "whisper_encoder": _Kind(
        "WhisperModel",
        "WhisperConfig",
        {
            "vocab_size": WORDS,
            "num_mel_bins": 40,
            "d_model": 128,
            "encoder_layers": 3,
            "encoder_attention_heads": 4,
            "encoder_ffn_dim": 512,
            "decoder_layers": 1,
            "decoder_attention_heads": 4,
            "max_source_positions": 50,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "decoder_start_token_id": 1,
        },
        images(40, 100),
        lambda model: model.get_submodule("encoder"),
    ),
    "t5_encoder": _Kind(
        "T5EncoderModel",
        "T5Config",
        {
            "vocab_size": WORDS,
            "d_model": 128,
            "d_kv": 32,
            "d_ff": 512,
            "num_layers": 3,
            "num_heads": 4,
        },
        tokens,
    ),
    "gpt2": _Kind(
        "GPT2LMHeadModel",
        "GPT2Config",
        {
            "vocab_size": WORDS,
            "n_positions": 64,
            "n_embd": 128,
            "n_layer": 3,
            "n_head": 4,
            "use_cache": False,
        },
        tokens,
    ),
    "llama": _Kind(
        "LlamaForCausalLM",
        "LlamaConfig",
        TEXT | {"num_key_value_heads": 2, "use_cache": False},
        tokens,
    ),
    "llama_tied": _Kind(
        "LlamaForCausalLM",
        "LlamaConfig",
        TEXT | {"num_key_value_heads": 2, "use_cache": False, "tie_word_embeddings": True},
        tokens,
    ),
    "qwen2": _Kind(
        "Qwen2ForCausalLM",
        "Qwen2Config",
        TEXT | {"num_key_value_heads": 2, "use_cache": False},
        tokens,
    ),
}


def entries() -> list[Entry]:
    """One entry per architecture above."""
    return [Entry(name, partial(_build, kind), kind.feed) for name, kind in _KINDS.items()]
