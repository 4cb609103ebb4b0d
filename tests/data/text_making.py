"""A tokenizer made on the spot, and texts for it."""

from pathlib import Path

from prunecli.config import DataConfig, TaskConfig
from prunecli.data import DataSet, Processor, open_data
from prunecli.parsing import parse_task
from prunecli.progress import SilentReporter

WORDS = ("good", "bad", "fine", "sun", "rain", "in", "the", "play", "##ing", "##s", ".")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
VOCABULARY = (*SPECIAL, *WORDS)

INPUTS = ("input_ids", "attention_mask")


def number(token: str) -> int:
    """The number of a token."""
    return VOCABULARY.index(token)


def save_tokenizer(folder: Path) -> Path:
    """A WordPiece tokenizer as BERT has it."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: place for place, word in enumerate(VOCABULARY)}
    own = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    own.normalizer = normalizers.BertNormalizer()
    own.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    own.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    PreTrainedTokenizerFast(
        tokenizer_object=own,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    ).save_pretrained(folder)
    return folder


def read_texts(
    path: Path,
    tokenizer: Path | None,
    task: str | None = None,
    inputs: tuple[str, ...] = INPUTS,
    longest: int | None = None,
    classes: tuple[str, ...] = (),
    **config: object,
) -> DataSet:
    """`open_data` for a network that takes tokens."""
    wish: TaskConfig | None = None if task is None else parse_task(task)
    optional = ("token_type_ids",)
    processor = None if tokenizer is None else Processor(tokenizer, longest, classes, optional)
    return open_data(
        DataConfig(path, task=wish, **config),  # type: ignore[arg-type]
        sample_shape=None,
        reporter=SilentReporter(),
        inputs=inputs,
        processor=processor,
    )
