"""The Python interface: the example of docs/api.md runs, and results equal those of the scripts."""

import re

import numpy as np
import pytest
import soundfile
from helpers import ROOT, make_table, run

from danger_safe.api import AudioError, Event, ScoredWindow, UserError, load_detector, load_embedder
from danger_safe.embeddings.table import read_table


def test_example_of_the_documentation_runs(sample, tmp_path, monkeypatch, capsys):
    (example,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "api.md").read_text("utf-8"), re.M | re.S)
    siren = next((sample / "Danger").glob("*siren*"), None) or next((sample / "Danger").iterdir())
    (tmp_path / "kitchen.wav").write_bytes(siren.read_bytes())
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "docs/api.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"5\.0 s, highest score [01]\.\d\d", lines[0])
    assert lines[-1] == "(768,)"


def test_paths_arrays_and_tables_agree(embeddings, sample):
    table = read_table(embeddings)
    path = sample / table.clips["file"][0]
    samples, rate = soundfile.read(path, dtype="float32")
    with load_embedder("compact") as embedder, load_detector() as detector:
        embedding = embedder.embed(path)
        np.testing.assert_allclose(embedding, table.features[0], rtol=0, atol=1e-3 * np.abs(embedding).max())
        stereo = np.stack([samples, samples], axis=1)
        np.testing.assert_allclose(embedder.embed(stereo, rate), embedding, rtol=0, atol=1e-4)
        by_path, by_array = detector.detect(str(path), threshold=0.001), detector.detect(samples, rate, threshold=1.0)
        assert by_path.score == pytest.approx(by_array.score, abs=1e-4)
        assert by_path.events and by_path.events[0].heard and not by_array.events
        assert isinstance(by_path.events[0], Event) and isinstance(by_path.windows[0], ScoredWindow)
        assert "array" not in repr(by_path)  # 768 numbers a window
        by_list = detector.detect(samples.tolist(), rate)
        assert by_list.score == by_array.score
        silent = (samples[:0], [], samples * np.nan, samples.astype(int), [[0.1], [0.1, 0.2]])
        for wrong, message in zip(silent, 2 * ["the array has no samples"] + 3 * ["^the array "], strict=True):
            with pytest.raises(AudioError, match=message):
                detector.detect(wrong, rate)
        for read in (detector.detect, embedder.embed):
            with pytest.raises(AudioError, match=r"^nope\.wav is missing$"):
                read("nope.wav")
        for threshold in (0.0, 1.1, float("nan")):
            with pytest.raises(ValueError, match="above 0 and at most 1"):
                detector.detect(path, threshold=threshold)
        with pytest.raises(AudioError, match="sample_rate"):
            embedder.embed(samples)


def test_model_of_any_network_works_with_an_embedding_function(tmp_path):
    make_table(tmp_path / "own.csv", dimensions=4, apart=6.0)
    flags = ["--embeddings", tmp_path / "own.csv", "--output-dir", tmp_path, "--jobs", 1]
    said = run("train_logreg_model.py", *flags).stdout.splitlines()
    assert "predict_danger.py will not be able to use the model" in said[0]
    noise = 0.1 * np.random.default_rng(0).standard_normal(5 * 32_000).astype(np.float32)
    model = tmp_path / "logreg_model.skops"
    for loudness, is_danger in ((6.0, True), (0.0, False)):
        with load_detector(
            model, embed=lambda samples, first=loudness: np.array([first, 0, 0, len(samples) * 0])
        ) as own:
            assert bool(own.detect(noise, 32_000).events) == is_danger
    with load_detector(model, embed=lambda samples: np.zeros(3)) as own, pytest.raises(UserError, match="4 numbers"):
        own.detect(noise, 32_000)
    with pytest.raises(UserError, match="unknown"):
        load_detector(model)
