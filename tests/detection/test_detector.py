"""The built-in detector: how it is built, and that its file contains no code."""

import numpy as np
import pytest
import soundfile
from helpers import write_esc50

from danger_safe.audio.decode import SAMPLE_RATE
from danger_safe.audio.room_tone import synthesize_room_tone
from danger_safe.core.errors import UserError
from danger_safe.detection import detector
from tools import build_detector
from tools.detector_training import collection_folds, fit_sigmoid


def test_detector_is_evaluated_on_held_out_collections(tmp_path, monkeypatch):
    sounds = [(name, 1, f"{name}{n}") for name in ("siren", "dog", "rain", "wind") for n in range(3)]
    labelled = [write_esc50(tmp_path / name, sounds, seconds=1.0) for name in ("one", "other")]
    rng = np.random.default_rng(0)
    for collection in ("heard", "kept back"):
        (tmp_path / "ordinary" / collection).mkdir(parents=True)
        noise = 0.05 * rng.standard_normal(12 * SAMPLE_RATE)
        soundfile.write(tmp_path / "ordinary" / collection / "noise.flac", noise, SAMPLE_RATE)
    flags = [
        "--labelled", *labelled, "--unlabelled", tmp_path / "ordinary", "--ordinary", tmp_path / "ordinary",
        "--hold-out", "kept back", "--rooms", "4", "--teacher", "compact", "--output", tmp_path / "d.npz",
    ]  # fmt: skip
    assert build_detector.main(list(map(str, flags))) == 0
    monkeypatch.setattr(detector, "BUILTIN_FILE", tmp_path / "d.npz")
    builtin = detector.load_builtin()
    assert builtin.about["ordinary"] == {"hours": 12 / 3600, "recordings": 1, "collections": ["kept back"]}
    assert builtin.about["left_out"]["clips"] == 2 * len(sounds) + 4
    assert len(builtin.reference.scores) == 2 * len(sounds) + 4 and builtin.reference.danger.sum() == 12
    assert {"siren", "dog", "rain", "wind", "room_tone_noise"} == set(builtin.categories)
    low, normal, high = (builtin.threshold_of(name) for name in detector.SENSITIVITIES)
    assert low >= normal >= high and builtin.threshold == normal
    points = builtin.about["operating_points"]
    for key in ("danger_recall", "false_alarms"):
        values = [point[key] for point in points]
        assert values == sorted(values, reverse=True)
    heard = builtin.tags(np.ones(builtin.centres.shape[1], np.float32))
    assert 1 >= heard[0][1] >= heard[-1][1] >= 0


def test_folds_keep_collections_together_and_have_similar_sizes():
    collection = np.repeat([f"collection {n}" for n in range(12)], range(1, 13))
    folds = collection_folds(collection)
    sizes = np.bincount([folds[name] for name in collection])
    assert len(sizes) == 6 and sizes.max() - sizes.min() <= 2


def test_sigmoid_gives_probabilities_for_balanced_classes():
    rng = np.random.default_rng(0)
    odds = rng.normal(0, 2, 5_000)
    truth = rng.random(5_000) < 1 / (1 + np.exp(-odds))
    squeezed = 1 / (1 + np.exp(-(0.5 * odds + 1)))
    slope, offset = fit_sigmoid(squeezed, truth)
    assert slope == pytest.approx(2.0, abs=0.2)
    assert offset == pytest.approx(-2.0, abs=0.25)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no zip", b"\x93NUMPY"])
def test_damaged_file_is_reported(tmp_path, monkeypatch, content):
    (tmp_path / "d.npz").write_bytes(content)
    monkeypatch.setattr(detector, "BUILTIN_FILE", tmp_path / "d.npz")
    with pytest.raises(UserError, match="is damaged"):
        detector.load_builtin()


def test_pickled_objects_are_refused(tmp_path, monkeypatch):
    class Code:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    np.savez(tmp_path / "d.npz", text=np.array([Code()], dtype=object))
    monkeypatch.setattr(detector, "BUILTIN_FILE", tmp_path / "d.npz")
    with pytest.raises(UserError, match="is damaged"):
        detector.load_builtin()
    assert not (tmp_path / "ran").exists()


def test_microphone_noise_is_not_danger(opened_detector):
    engine, builtin = opened_detector
    for number in range(1000, 1012):  # room tones that it was not trained on
        embedding = engine.embed(engine.front_end(synthesize_room_tone(number)[: 3 * SAMPLE_RATE])[None])
        assert builtin.scores(embedding)[0] < builtin.threshold, number


def test_built_in_detector_belongs_to_the_included_network():
    from models.checkpoint_files import COMPACT, verified_sha256

    builtin = detector.load_builtin()
    assert builtin.checkpoint_sha256 == verified_sha256("compact", COMPACT)
    assert 0 < builtin.threshold < 1
    assert {"siren", "glass_breaking", "gun_shot", "speech", "music", "singing"} <= set(builtin.categories)
