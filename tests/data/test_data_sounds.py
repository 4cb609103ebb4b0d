"""Sounds: samples as they were written, and what a feature extractor makes of them."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from data_making import read

from prunecli.choices import TaskName
from prunecli.config import DataConfig, TaskConfig
from prunecli.data import DataSet, Processor, open_data
from prunecli.data.contents import Features, Samples
from prunecli.errors import DataError, MissingExtraError, PrunecliError
from prunecli.progress import SilentReporter

RATE = 8000


def samples(label: int, index: int, length: int = 40) -> np.ndarray:
    """A ramp that says which sound this is; 16-bit files hold it exactly."""
    return ((1 + label) * 1000 + 10 * index + np.arange(length)).astype(np.int16)


def write(path: Path, sound: np.ndarray, rate: int = RATE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, sound, rate)


def folder(root: Path, each: int = 8, **more: int) -> Path:
    for label, name in enumerate(("high", "low")):
        for index in range(each):
            write(root / name / f"{index}.wav", samples(label, index, 40 - index), **more)
    return root


def heard(path: Path, extractor: Path, **config: object) -> DataSet:
    return open_data(
        DataConfig(path, **config),  # type: ignore[arg-type]
        sample_shape=None,
        reporter=SilentReporter(),
        inputs=("input_values",),
        processor=Processor(extractor),
    )


def test_a_folder_for_each_class(tmp_path: Path) -> None:
    data = read(folder(tmp_path))
    assert data.labels[0].classes == ("high", "low")
    sounds, labels = data.train.inputs[0], data.train.targets[0]
    assert sounds.shape[1:] == (40,)
    for sound, label in zip((sounds * 32768).round().long().tolist(), labels.tolist(), strict=True):
        index = (sound[0] - 1000 * (1 + label)) // 10
        wanted = samples(label, index, 40 - index).tolist()
        assert sound == wanted + [0] * index
    assert "sounds: 8,000 Hz, padded to 40 samples, the longest" in data.notes
    assert data.preprocess[0].in_words() == "used as stored"


def test_one_length_as_asked_or_as_the_network_takes_it(tmp_path: Path) -> None:
    folder(tmp_path)
    data = read(tmp_path, max_length=36)
    assert data.train.inputs[0].shape[1:] == (36,)
    assert "sounds: 8,000 Hz, padded to 36 samples, 8 sounds cut to that" in data.notes
    data = read(tmp_path, sample_shape=(1, 50))
    assert data.train.inputs[0].shape[1:] == (1, 50)
    assert data.train.inputs[0][:, :, 40:].abs().max() == 0


def test_channels_are_averaged(tmp_path: Path) -> None:
    for label, name in enumerate(("a", "b")):
        for index in range(6):
            left = samples(label, index)
            write(tmp_path / name / f"{index}.wav", np.stack([left, left + 200], 1))
    data = read(tmp_path)
    first = (data.train.inputs[0][:, 0] * 32768).round().long() - 100
    assert torch.equal(first // 1000 - 1, data.train.targets[0])


def parquet(file: Path, **more: object) -> Path:
    def encoded(label: int, index: int) -> bytes:
        stream = io.BytesIO()
        soundfile.write(stream, samples(label, index), RATE, format="WAV")
        return stream.getvalue()

    table = {
        "audio": [{"bytes": encoded(i % 2, i), "path": f"{i}.wav"} for i in range(20)],
        "speaker": [str(i) for i in range(20)],
        "label": [i % 2 for i in range(20)],
        **more,
    }
    pq.write_table(pa.table(table), file)
    return file


def test_parquet(tmp_path: Path) -> None:
    data = read(parquet(tmp_path / "train.parquet"))
    first = (data.train.inputs[0][:, 0] * 32768).round().long()
    assert torch.equal(first // 1000 - 1, data.train.targets[0])
    assert len(data.train) + len(data.choose) + len(data.validation) == 20


def test_no_classes_are_needed_to_match(tmp_path: Path) -> None:
    for index in range(9):
        write(tmp_path / "train" / f"{index}.wav", samples(0, index))
        write(tmp_path / "validation" / "more" / f"{index}.wav", samples(1, index))
    data = read(tmp_path, task=TaskConfig(TaskName.MATCH))
    assert data.labels == data.train.targets == ()
    assert len(data.validation) == 9


def test_the_networks_own_extractor(tmp_path: Path) -> None:
    from transformers import Wav2Vec2FeatureExtractor

    own = tmp_path / "own"
    Wav2Vec2FeatureExtractor(
        sampling_rate=RATE, do_normalize=True, return_attention_mask=True
    ).save_pretrained(own)
    noise = np.random.default_rng(0)
    for label in ("a", "b"):
        for length in range(32, 41):
            write(tmp_path / "data" / label / f"{length}.wav", noise.normal(0.1, 0.2, length))
    data = heard(tmp_path / "data", own)
    note = "sounds: through Wav2Vec2FeatureExtractor, 8,000 Hz, padded to 40 samples, the longest"
    assert note in data.notes
    for sound in data.train.inputs[0]:
        length = int((sound != 0).sum())
        # What pads does not count, and stays silent.
        assert abs(float(sound[:length].mean())) < 1e-5
        assert float(sound[:length].var(correction=0)) == pytest.approx(1, rel=1e-3)
        assert sound[length:].abs().sum() == 0


def test_other_rates_are_resampled_for_the_extractor(tmp_path: Path) -> None:
    from transformers import Wav2Vec2FeatureExtractor

    own = tmp_path / "own"
    Wav2Vec2FeatureExtractor(sampling_rate=2 * RATE, do_normalize=False).save_pretrained(own)
    tone = np.sin(np.arange(800) * 2 * np.pi * 100 / RATE)
    for name in ("a", "b"):
        for index in range(6):
            write(tmp_path / "data" / name / f"{index}.wav", tone)
    data = heard(tmp_path / "data", own)
    sound = data.train.inputs[0][0].numpy()
    assert sound.shape == (1600,)
    wanted = np.sin(np.arange(1600) * 2 * np.pi * 100 / (2 * RATE))
    assert np.abs(sound - wanted)[200:-200].max() < 0.01


def test_frames_as_the_extractor_gives_them(tmp_path: Path) -> None:
    from transformers import WhisperFeatureExtractor

    own = tmp_path / "own"
    WhisperFeatureExtractor(chunk_length=1).save_pretrained(own)
    data = heard(folder(tmp_path / "data", rate=16000), own)
    assert data.train.inputs[0].shape[1:] == (80, 100)
    assert "sounds: 16,000 Hz, through WhisperFeatureExtractor" in data.notes


def test_bad_sounds(tmp_path: Path) -> None:
    folder(tmp_path)
    (tmp_path / "low" / "3.wav").write_bytes(b"nonsense")
    with pytest.raises(DataError, match=r"low/3\.wav: it cannot be read as a sound: ") as caught:
        read(tmp_path)
    assert "write it again as .wav" in (caught.value.hint or "")
    write(tmp_path / "low" / "3.wav", samples(1, 3), rate=RATE * 2)
    with pytest.raises(DataError, match="must have one rate, got 16,000 Hz after 8,000 Hz") as no:
        read(tmp_path)
    assert "--processor" in (no.value.hint or "")
    table = parquet(tmp_path / "a.parquet", audio=pa.array([b"x", None] * 10, pa.binary()))
    with pytest.raises(DataError, match=r"a\.parquet row 1: it cannot be read as a sound"):
        read(table)
    with pytest.raises(PrunecliError, match="--image-size: has no effect on sounds"):
        read(tmp_path, image_size=8)
    with pytest.raises(DataError, match=r"preprocessor_config\.json is needed for sounds"):
        heard(tmp_path, tmp_path, processor=tmp_path)


def test_classes_lie_in_folders(tmp_path: Path) -> None:
    write(tmp_path / "1.wav", samples(0, 1))
    with pytest.raises(DataError, match="sounds must lie in class sub-folders, got none") as caught:
        read(tmp_path)
    assert "with its sounds inside; --task match needs no classes" in (caught.value.hint or "")


def test_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(tmp_path)
    monkeypatch.setattr("prunecli.data.audio.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError) as caught:
        read(tmp_path)
    assert caught.value.message == "soundfile is not installed"
    assert caught.value.hint == "install it with: pip install 'prunecli[audio]'"


def test_what_is_known_of_sounds(tmp_path: Path) -> None:
    from transformers import (
        ASTFeatureExtractor,
        SeamlessM4TFeatureExtractor,
        Wav2Vec2FeatureExtractor,
        WhisperFeatureExtractor,
    )

    data = tmp_path / "data"
    for label, place in enumerate(("high", "low")):
        for index in range(8):
            write(data / place / f"{index}.wav", samples(label, index, 2000), 16000)
    assert read(data).contents == (Samples(),)
    assert read(parquet(tmp_path / "train.parquet")).contents == (Samples(),)
    for name, extractor, content in (
        ("a", Wav2Vec2FeatureExtractor(do_normalize=True), Samples(levelled=True)),
        ("b", Wav2Vec2FeatureExtractor(do_normalize=False), Samples()),
        ("c", WhisperFeatureExtractor(chunk_length=1), Features((80,))),
        ("d", SeamlessM4TFeatureExtractor(), Features((80, 160))),
        ("e", ASTFeatureExtractor(num_mel_bins=32), Features((32,))),
    ):
        extractor.save_pretrained(tmp_path / name)
        assert heard(data, tmp_path / name).contents == (content,), name
