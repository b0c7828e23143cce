"""predict_danger.py through the script: inputs, output formats, live streams."""

import csv
import io
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import datetime

import listening
import numpy as np
import pytest
import soundfile
import torch
from helpers import ROOT, patience, run

import predict_danger
from danger_safe.audio.windows import ScoredWindow, sliding_windows
from danger_safe.core.errors import UserError
from danger_safe.detection import audioset
from danger_safe.detection.event_reporter import EventReporter, check_categories
from danger_safe.detection.events import Event, EventConfig, EventFinder
from danger_safe.detection.scorer import Smoother
from danger_safe.detection.writers import Csv, Json, Summary, Writer
from models.checkpoint_files import CheckpointInfo
from models.checkpoints import load_model, save_checkpoint
from models.mnn_network import NetworkError
from models.models import Cnn14

SCRIPT = "predict_danger.py"
RATE = 32_000


def sound(seconds, rate=RATE, channels=1):
    rng = np.random.default_rng(0)
    wave = 0.1 * rng.standard_normal((round(seconds * rate), channels))
    wave[:, 0] += 0.4 * np.sin(2 * np.pi * 900 * np.arange(len(wave)) / rate)
    return wave


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    path = tmp_path_factory.mktemp("recording") / "đêm, 1.wav"
    soundfile.write(path, sound(7.2), RATE)
    return path


def test_detection_works_without_training(recording):
    done = run(SCRIPT, recording, "--jobs", 1)
    first, *events = done.stdout.splitlines()
    assert first.startswith(("DANGER", "Safe", "Unknown"))
    assert "đêm, 1.wav  (0:07.2" in first
    assert bool(events) == first.startswith("DANGER")
    assert "built-in detector" in done.stderr


def test_output_formats(predict, recording):
    rows = list(csv.DictReader(io.StringIO(predict(recording, "--format", "csv").out)))
    assert [row["start"] for row in rows[:3]] == ["0.000", "0.500", "1.000"]
    assert float(rows[-1]["end"]) == pytest.approx(7.2, abs=0.01)
    assert all(row["file"] == str(recording) for row in rows)
    scores = [float(row["score"]) for row in rows]
    for threshold, verdicts in ((min(scores) / 2, ("Danger",)), (1.0, ("Safe", "Unknown"))):
        flags = ["--threshold", threshold, "--format"]
        line = json.loads(predict(recording, *flags, "json").out)
        assert line["verdict"] in verdicts and line["threshold"] == pytest.approx(threshold, abs=1e-6)
        assert line["seconds"] == pytest.approx(7.2, abs=0.01)
        assert line["score"] == pytest.approx(max(scores), abs=1e-5)
        labels = [row.split("\t") for row in predict(recording, *flags, "audacity").out.splitlines()]
        assert [(float(a), float(b)) for a, b, _ in labels] == [(e["start"], e["end"]) for e in line["events"]]
        if line["verdict"] == "Danger":
            (event,) = line["events"]
            assert (event["start"], event["end"]) == (0, pytest.approx(7.2, abs=0.01))
            assert len(event["heard"]) == 3
            assert "category" in event["heard"][0]


def test_exit_status_reports_danger(predict, recording):
    predict(recording, "--threshold", "1e-9", "--fail-on-danger", status=4)
    predict(recording, "--threshold", "1", "--fail-on-danger", status=0)


def test_sample_rate_channels_and_format_do_not_matter(predict, tmp_path, recording):
    low = sound(7.2)
    soundfile.write(tmp_path / "a.flac", np.repeat(low, 2, axis=1), RATE)
    soundfile.write(tmp_path / "b.wav", low, RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "c.wav", low, RATE, subtype="PCM_24")
    (tmp_path / "notes.txt").write_text("no sound")
    scores = [json.loads(line)["score"] for line in predict(tmp_path, recording, "--format", "json").out.splitlines()]
    assert len(scores) == 4
    assert np.ptp(scores) < 0.02
    soundfile.write(tmp_path / "d.wav", sound(1.5, 96_000, 2), 96_000)
    assert json.loads(predict(tmp_path / "d.wav", "--format", "json").out)["seconds"] == pytest.approx(1.5, abs=0.01)


def test_unreadable_files_are_reported_and_the_others_processed(predict, tmp_path, monkeypatch, recording):
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "text.wav").write_text("this is not a sound")
    (tmp_path / "good.wav").write_bytes(recording.read_bytes())
    done = predict(tmp_path, status=3)
    assert "empty.wav is an empty file" in done.err
    assert "text.wav cannot be decoded" in done.err
    assert "good.wav" in done.out
    assert predict(tmp_path / "empty.wav", status=1).out == ""
    monkeypatch.chdir(tmp_path)
    assert predict("nowhere.wav", status=1).err == "error: nowhere.wav: no such file\n"  # before the network is loaded
    assert "nowhere.wav is missing" in predict(tmp_path / "nowhere.wav", tmp_path / "good.wav", status=3).err


@pytest.mark.parametrize("ffmpeg", [True, False])
def test_video_is_read_by_ffmpeg(predict, tmp_path, monkeypatch, recording, ffmpeg):
    if ffmpeg and not shutil.which("ffmpeg"):
        pytest.skip("ffmpeg is not installed")
    video = tmp_path / "-video.mkv"
    if ffmpeg:
        picture = ["-f", "lavfi", "-i", "color=size=32x32:rate=5:duration=7"]
        command = ["ffmpeg", "-v", "error", "-i", recording, *picture, "-c:a", "flac", f"file:{video}"]
        subprocess.run(command, check=True)
        line = json.loads(predict(video.parent, "--format", "json").out)
        plain = json.loads(predict(recording, "--format", "json").out)
        assert line["score"] == pytest.approx(plain["score"], abs=0.05)
    else:
        video.write_bytes(b"\x1aE\xdf\xa3" + bytes(1000))
        monkeypatch.setenv("PATH", "")
        assert "with ffmpeg installed" in predict(video.parent, status=1).err


def test_streams(predict, recording):
    whole = recording.read_bytes()
    expected = predict(recording, "--format", "csv").out
    expected = [row.split(",")[-5:-2] for row in expected.splitlines()[1:]]
    for data, flags in ((whole, ()), (whole[44:], ("--raw", str(RATE)))):
        rows = [row.split(",") for row in predict("-", *flags, "--format", "csv", stdin=data).out.splitlines()[1:]]
        assert [row[1:3] for row in rows] == [row[:2] for row in expected]
        assert np.allclose([float(row[3]) for row in rows], [float(row[2]) for row in expected], atol=0.002)
    samples = soundfile.read(recording, always_2d=True)[0]
    soundfile.write(wide := io.BytesIO(), samples.repeat(6, axis=1), RATE, format="WAVEX", subtype="PCM_24")
    answer = json.loads(predict("-", "--format", "json", stdin=wide.getvalue()).out)
    assert answer["score"] == pytest.approx(max(float(row[2]) for row in expected), abs=0.002)
    broken = predict("-", stdin=whole[:100_001], status=3)  # truncated in the middle of a sample
    assert "(0:01.6;" in broken.out and "not all of it was heard)" in broken.out
    assert "the stream on stdin breaks off at 0:01.6 of 0:07.2" in broken.err
    assert "is not a WAV stream" in predict("-", stdin=b"fLaC" + whole, status=1).err


def test_stream_events_are_reported_when_they_begin_and_sigterm_ends_it(recording):
    command = [sys.executable, ROOT / SCRIPT, "-", "--raw", str(RATE), "--format", "json", "--threshold", "1e-9"]
    command += ["--jobs", "1"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    process.stdin.write(soundfile.read(recording, dtype="int16")[0][: 4 * RATE].tobytes())
    process.stdin.flush()
    with patience(process):
        begin = json.loads(process.stdout.readline())
        assert (begin["event"], begin["start"]) == ("begin", 0) and datetime.fromisoformat(begin["time"]).tzinfo
        if sys.platform == "win32":  # Windows has no SIGTERM
            process.stdin.close()
        else:
            process.terminate()
        end, whole = map(json.loads, process.communicate()[0].splitlines())
    assert process.returncode == 0 and end["event"] == "end" and whole["verdict"] == "Danger"
    assert whole["events"] == [{key: end[key] for key in ("start", "end", "peak", "score", "heard")}]


def test_rows_of_a_live_stream_are_printed_at_once(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written := io.BytesIO()))
    Csv().on_window(Summary("-", 0.5), ScoredWindow(1.0, 4.0, 0.1, 0.1, np.zeros(1)), is_live=True)
    assert written.getvalue().splitlines()[1].startswith(b"-,1.000,4.000,")


def test_only_and_ignore_name_categories():
    class Detector:
        name, categories = "it", ("siren", "music")

        @staticmethod
        def tags(embedding):
            return ((Detector.categories[int(embedding[0])], 0.9),)

    def reported(*flags):
        summary = Summary("a.wav", 0.5)
        args = predict_danger.parse(["a.wav", *flags])
        finder = EventFinder(EventConfig(0.5), 0.5)
        reporter = EventReporter(finder, Detector, summary, Writer(), None, args.only, args.ignore)
        for n in (0, 1):
            reporter.on_event_end(Event(n, n + 1, n, 0.9, np.array([n])))
        return [event.heard[0][0] for event in summary.events]

    assert reported() == ["siren", "music"] and reported("--ignore", "music") == reported("--only", "siren, dog") == [
        "siren"
    ]
    with pytest.raises(UserError, match=r"names no sirens \(nearest: siren"):
        check_categories(("sirens",), Detector)


def test_recording_is_incomplete_if_the_network_fails(tmp_path, capsys):
    class FailingScorer:
        hop_s, detector = 0.5, None

        @staticmethod
        def score_recording(chunks, is_live):
            yield ScoredWindow(0.0, 3.0, 0.1, 0.1, np.zeros(1))
            raise NetworkError("the network ended")

    soundfile.write(tmp_path / "a.wav", sound(6), RATE)
    summary = predict_danger.process(tmp_path / "a.wav", None, predict_danger.Options(0.5), FailingScorer, Writer())
    Json().on_recording_end(summary)
    assert summary.failure == "the network ended" and json.loads(capsys.readouterr().out)["incomplete"]


def test_own_model_is_used(trained, predict, tmp_path, other_checkpoint, recording):
    model = trained[0] / "logreg_model.joblib"
    assert run(SCRIPT, recording, "--model", model, "--jobs", 1).stderr.startswith("logreg_model.joblib")
    refused = predict(recording, "--model", model, "--checkpoint", other_checkpoint, status=1)
    assert "trained on embeddings of checkpoint compact" in refused.err
    assert "no such model" in predict(recording, "--model", tmp_path / "no.joblib", status=1).err


def test_tags_are_those_of_the_network(tmp_path, monkeypatch):
    torch.manual_seed(0)
    path, model = tmp_path / "n.pth", Cnn14(527, 2).eval()
    save_checkpoint(path, model, categories=[], licence="", training={})
    model, info = load_model(str(path))
    monkeypatch.setattr(audioset, "NAMES_PATHS", (tmp_path / "labels.csv",))
    monkeypatch.setattr(audioset, "read_info", lambda checkpoint: CheckpointInfo(checkpoint, ""))
    assert audioset.find_tagger(info, model.head) is None
    audioset._find_names.cache_clear()
    names = [f"tag {n}" for n in range(527)]
    (tmp_path / "labels.csv").write_text(
        "index,mid,display_name\n" + "".join(f'{n},/m/{n},"{t}"\n' for n, t in enumerate(names))
    )
    output = model(torch.from_numpy(sound(1.0)[:, 0].astype(np.float32))[None])
    expected = output["clipwise_output"][0].topk(3)
    heard = audioset.find_tagger(info, model.head).tags(output["embedding"][0].detach().numpy())
    assert [name for name, _ in heard] == [names[i] for i in expected.indices]
    assert [score for _, score in heard] == pytest.approx(expected.values.tolist(), abs=1e-5)
    own = audioset.find_tagger(replace(info, categories=tuple(names[::-1])), model.head)
    assert own.names[0] == names[-1]  # the checkpoint's categories have priority
    audioset._find_names.cache_clear()


@pytest.mark.parametrize(
    "arguments",
    [[], ["a.wav", "--mic"], ["a.wav", "--raw", "16000"], ["a.wav", "--hop", "5", "--window", "1"],
     ["a.wav", "b.wav", "--plot", "p.png"], ["a.wav", "--plot", "p.pdf"], ["a.wav", "--threshold", "7"],
     ["a.wav", "--threshold", "0.5", "--max-false-alarms-per-hour", "3"],
     ["a.wav", "b.wav", "--format", "audacity"]],
)  # fmt: skip
def test_wrong_usage(predict, arguments):
    assert predict(*arguments, status=2).out == ""


def test_windows_cover_the_whole_recording():
    samples = np.arange(10 * RATE, dtype=np.float32)
    for pieces in ([samples], np.split(samples, range(0, len(samples), 12_345))):
        cut = list(sliding_windows(pieces, 3.0, 2.0))
        assert [(w.start, w.end) for w in cut] == [(0, 3), (2, 5), (4, 7), (6, 9), (8, 10)]
        for window in cut:
            assert np.array_equal(window.samples, samples[round(window.start * RATE) : round(window.end * RATE)])
    assert [(w.start, w.end) for w in sliding_windows([samples[: 5 * RATE]], 3.0, 2.0)] == [(0, 3), (2, 5)]
    assert [(w.start, w.end) for w in sliding_windows([samples[:RATE]], 3.0, 2.0)] == [(0, 1)]
    assert list(sliding_windows([], 3.0, 2.0)) == []


def test_smoothing_removes_single_windows_and_does_not_mix_recordings():
    smoother = Smoother(0.5)
    smoothed = [smoother.add(number / 2, score) for number, score in enumerate([0.0, 0.0, 0.9, 0.0])]
    assert smoothed == pytest.approx([0.0, 0.0, 0.35, 0.35])  # mean of the two newest windows minus a margin
    assert smoother.add(0.0, 0.6) == 0.6
    assert Smoother(3.0).add(3.0, 0.6) == 0.6


def test_microphone_noise_is_safe_and_a_distant_siren_is_danger(predict, tmp_path):
    rng = np.random.default_rng(0)
    siren = 2 * listening.siren(6)
    steps = np.round(rng.standard_normal(6 * RATE) * 4) / 32_768  # 16-bit
    for name, samples in (("room", steps), ("near", 0.5 * siren), ("distant", 0.002 * siren)):
        soundfile.write(tmp_path / f"{name}.wav", samples, RATE)
    done = predict(*(tmp_path / f"{name}.wav" for name in ("room", "near", "distant")), "--format", "json")
    room, near, distant = map(json.loads, done.out.splitlines())
    assert (room["verdict"], room["silent"], room["score"]) == ("Safe", 1, 0)
    assert near["silent"] == distant["silent"] == 0
    assert near["verdict"] == distant["verdict"] == "Danger"
    assert distant["score"] == pytest.approx(near["score"], abs=0.2)


def test_digital_silence_is_safe_and_the_false_alarm_limit_is_used(predict, tmp_path):
    soundfile.write(tmp_path / "silence.wav", np.zeros(6 * RATE), RATE)
    line = json.loads(predict(tmp_path / "silence.wav", "--format", "json").out)
    assert (line["verdict"], line["score"], line["silent"]) == ("Safe", 0, 1)
    done = predict(tmp_path / "silence.wav", "--max-false-alarms-per-hour", "10")
    assert "louder than -60 dB" in done.out and "false alarms per hour" in done.err
    assert "0 or more" in predict(tmp_path / "silence.wav", "--max-false-alarms-per-hour", "-1", status=2).err
