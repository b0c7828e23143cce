"""Distillation of the compact network: sounds, mixtures, and a training that is killed and resumed."""

from functools import partial

import numpy as np
import pytest
import soundfile
import torch

from danger_safe.audio.decode import SAMPLE_RATE
from danger_safe.core.errors import UserError
from tools.detector_tags import DANGEROUS_TAGS
from tools.distil import training
from tools.distil.corpus import SEGMENT_S, collect
from tools.distil.examples import RING_SIZE, TAGS, Examples
from tools.distil.mixtures import EXAMPLE_SAMPLES, MixtureMaker


@pytest.fixture
def corpus(tmp_path):
    rng = np.random.default_rng(0)
    for collection, name, seconds in (
        ("a", "long", 200),
        ("a", "123456-cut", 4),
        ("b", "short", 1),
        ("b", "silent", 2),
    ):
        (tmp_path / "sounds" / collection).mkdir(parents=True, exist_ok=True)
        samples = np.zeros(seconds * 8_000) if name == "silent" else 0.1 * rng.standard_normal(seconds * 8_000)
        soundfile.write(tmp_path / "sounds" / collection / f"{name}.wav", samples, 8_000)
    return collect([tmp_path / "sounds"], tmp_path / "work", without={"123456"})


def test_esc50_recordings_and_silence_are_excluded_and_long_recordings_sampled(corpus):
    long, short = corpus.collections["sounds/a"], corpus.collections["sounds/b"]
    assert len(long) == 9 and {segment.size for segment in long} == {SEGMENT_S * SAMPLE_RATE}
    assert [segment.size for segment in short] == [SAMPLE_RATE]
    train, held_out = corpus.split(["sounds/b"])
    assert train == [long] and held_out == [short]
    with pytest.raises(UserError, match="no such collection: c; there are sounds/a, sounds/b"):
        corpus.split(["c"])


def test_mixtures_have_one_length_and_are_reproducible(corpus):
    first, second = (MixtureMaker(corpus, corpus.split([])[0], np.random.default_rng(1)) for _ in range(2))
    for _ in range(30):
        mixture = first.mixture()
        assert mixture.shape == (EXAMPLE_SAMPLES,) and mixture.dtype == np.float32
        assert 0 < np.abs(mixture).max() <= 1
        np.testing.assert_array_equal(mixture, second.mixture())


def test_killed_training_is_resumed(tmp_path, monkeypatch):
    Distillation, Recipe, size = training.Distillation, training.Recipe, 4
    monkeypatch.setattr(training, "VALIDATION_SIZE", size)
    monkeypatch.setattr(training, "Targets", partial(training.Targets, count=size))
    rng = np.random.default_rng(0)
    examples = {}
    for name, room in (("ring", RING_SIZE), ("validation", size)):
        examples[name] = Examples.open(tmp_path, name, room, "w+")
        for array in (examples[name].logmel, examples[name].logits, examples[name].features):
            array[:size] = rng.standard_normal((size, *array.shape[1:])).astype(np.float16)
        examples[name].written[0] = size
    ring, validation = examples["ring"], examples["validation"]
    tags = [*DANGEROUS_TAGS, *map(str, range(TAGS - len(DANGEROUS_TAGS)))]
    straight = Distillation(Recipe(2, batch_size=2), tags, ring, validation, tmp_path / "straight")
    straight.run()
    killed = Distillation(Recipe(2, batch_size=2), tags, ring, validation, tmp_path / "state")
    killed.student.train()
    killed._train_step()
    killed._save()
    resumed = Distillation(Recipe(2, batch_size=2), tags, ring, validation, tmp_path / "state")
    assert resumed.step == 1
    resumed.run()
    for name, value in straight.network().state_dict().items():
        torch.testing.assert_close(resumed.network().state_dict()[name], value, msg=name)
    with pytest.raises(UserError, match="belongs to a training with other settings"):
        Distillation(Recipe(2, batch_size=3), tags, ring, validation, tmp_path / "state")
