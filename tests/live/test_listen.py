"""listen.py with real sockets, a real broker and real processes: planted events are reported despite failures."""

import base64
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import fields

import numpy as np
import pytest
import soundfile
from helpers import PATIENCE_S, ROOT, wait_for
from listening import PostServer, siren
from live_page import Client, free_port

import listen
from danger_safe.audio.decode import read_channels
from danger_safe.core.errors import UserError
from danger_safe.detection.events import EventConfig, EventFinder
from danger_safe.detection.scorer import HOP_S, WINDOW_S, WindowScorer
from danger_safe.live.alarms import Policy, Tracker
from danger_safe.live.config import EXAMPLE, LISTS, TABLES, AlarmConfig, read_config, without_secrets
from danger_safe.live.verdicts import load_windows, read_verdicts

RATE = 32_000
TELL = "import os; open('told', 'a').write(os.environ['DANGER_SOURCE'] + ' ' + os.environ['DANGER_PHASE'] + chr(10))"


@pytest.fixture
def start():
    """Start listen.py in a folder with these settings."""
    started = []

    def run_service(folder, settings):
        (folder / "listen.toml").write_text(settings, encoding="utf-8")
        service = subprocess.Popen(
            [sys.executable, str(ROOT / "listen.py")], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )  # fmt: skip
        started.append(service)
        return service

    yield run_service
    for service in started:
        service.kill()


def events(folder):
    """Read events.jsonl, every line of which must be complete."""
    log = folder / "events.jsonl"
    text = log.read_text(encoding="utf-8") if log.exists() else ""
    assert not text or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """29 seconds with sirens from 5 to 11 s and from 18 to 23 s."""
    samples = np.random.default_rng(0).standard_normal(29 * RATE) * 0.003
    for begin, end in ((5, 11), (18, 23)):
        samples[begin * RATE : end * RATE] += siren(end - begin)
    path = tmp_path_factory.mktemp("listen") / "recording.wav"
    soundfile.write(path, samples, RATE, subtype="PCM_16")
    return path


@pytest.fixture(scope="module")
def windows(recording, opened_detector):
    """The recording's windows as predict_danger.py scores them."""
    with WindowScorer(*opened_detector, WINDOW_S, HOP_S) as scorer:
        return list(scorer.score_recording(read_channels(recording)))


@pytest.fixture(scope="module")
def expected(windows, opened_detector):
    """The recording's events according to predict_danger.py."""
    finder = EventFinder(EventConfig(opened_detector[1].threshold), HOP_S)
    return [event for window in windows for event in finder.add(window)] + finder.finish()


def test_a_file_a_pipe_and_an_address_give_the_same_alarms(start, tmp_path, recording, expected):
    assert len(expected) == 2
    client = Client(free_port())
    with PostServer(recording.read_bytes(), failures=2) as server:
        service = start(tmp_path, f"""
            alarm.cooldown_seconds = 0
            record.before_seconds = 2
            page.port = {client.port}
            [[source]]
            name = "file"
            file = {json.dumps(str(recording))}
            [[source]]
            name = "Ống"
            stdin = "wav"
            [[source]]
            name = "address"
            url = "http://127.0.0.1:{server.port}/stream"
            [[webhook]]
            url = "http://user:p%40ss@127.0.0.1:{server.port}/alarm"
            secret = "quiet"
            on = ["end"]
            [[command]]
            run = {json.dumps([sys.executable, "-c", TELL])}
            """)  # fmt: skip
        data, place = recording.read_bytes(), 0
        for size in (1, 43, 1000, 99_999):  # chunks of any size
            service.stdin.write(data[place : place + size])
            service.stdin.flush()
            place += size
        service.stdin.write(data[place:])
        service.stdin.close()
        service.stdin = None
        wait_for(lambda: {(e["source"], e["start"] > 12) for e in events(tmp_path)} >= {
            (source, late) for source in ("file", "Ống", "address") for late in (False, True)})  # fmt: skip
        wait_for(lambda: len(server.posts) >= 6)
        client.open()
        shown = {event["id"]: event for event in client.state()["events"]}
        judged = next(event["id"] for event in events(tmp_path) if event["source"] == "file")
        wait_for(
            lambda: client.ask(f"/sound/{judged}")[0] == 200 and b"polyline" in client.ask(f"/picture/{judged}")[2]
        )
        assert client.judge(judged, "false_alarm") == 200
        names = {source["name"]: source["state"] for source in client.state()["sources"]}
        assert set(names) == {"file", "Ống", "address"} and names["Ống"] == "finished"
        service.send_signal(signal.SIGTERM)
        out, words = service.communicate(timeout=PATIENCE_S)
    assert service.returncode == 0, words
    told = events(tmp_path)
    assert set(shown) <= {event["id"] for event in told} and len(shown) >= 6
    verdict = read_verdicts(tmp_path / "verdicts.jsonl")[judged]
    assert (verdict.source, verdict.sound) == ("file", f"recordings/{judged}.flac")
    assert load_windows(tmp_path / verdict.embeddings).embeddings.shape[1] == 768
    for source in ("file", "Ống", "address"):
        heard = [event for event in told if event["source"] == source][:2]
        for event, known in zip(heard, expected, strict=True):
            assert [event[key] for key in ("start", "end", "peak")] == pytest.approx(
                [known.start, known.end, known.peak], abs=HOP_S)  # fmt: skip
            assert event["alarm"] and event["category"] == event["heard"][0]["category"]
        for event, known in zip(heard, expected, strict=True):
            kept, rate = soundfile.read(tmp_path / "recordings" / f"{event['id']}.flac")
            sound = soundfile.read(recording)[0][round((known.start - 2) * RATE) :]
            assert rate == RATE and len(kept) / RATE == pytest.approx(2 + known.end - known.start + 5, abs=2 * HOP_S)
            assert np.abs(kept - sound[: len(kept)]).max() < 2e-3
    by_id = {event["id"]: event for event in told}
    assert len(by_id) == len(told)
    for post in server.posts:
        assert post.login == "Basic " + base64.b64encode(b"user:p@ss").decode()
        assert post.signature == server.sign(post.body, "quiet")
        assert json.loads(post.body) == {"phase": "end", **by_id[json.loads(post.body)["id"]]}
    commands = (tmp_path / "told").read_text(encoding="utf-8").splitlines()
    assert commands.count("file begin") == 2 and "file end" not in commands
    assert out.decode().count("DANGER") >= 6
    failures = [line for line in words.decode().splitlines() if "webhook" in line]
    assert len(failures) == 2 and "HTTP 503; it is tried again" in failures[0] and "delivered again" in failures[1]
    assert "p%40ss" not in failures[0]


def test_events_are_saved_as_they_end_and_when_it_is_stopped(start, tmp_path, recording):
    settings = """
        alarm.cooldown_seconds = 0
        [[source]]
        name = "pipe"
        stdin = 32000
    """
    service = start(tmp_path, settings)
    # Up to 23 s: the first siren has ended, the second has not.
    service.stdin.write(soundfile.read(recording, dtype="int16")[0][: 23 * RATE].tobytes())
    service.stdin.flush()
    wait_for(lambda: events(tmp_path))
    assert b"DANGER" in service.stdout.readline()
    assert b"over" in service.stdout.readline()
    assert b"DANGER" in service.stdout.readline()
    assert len(events(tmp_path)) == 1  # what is there, even if it is killed now
    service.send_signal(signal.SIGTERM)
    service.communicate(timeout=PATIENCE_S)
    assert service.returncode == 0 and len(events(tmp_path)) == 2


def test_init_writes_an_example_with_every_setting_and_overwrites_nothing(refused, tmp_path):
    assert listen.main(["--init"]) == 0
    written = (tmp_path / "listen.toml").read_text(encoding="utf-8")
    assert written == EXAMPLE.read_text(encoding="utf-8")
    assert [source.name for source in read_config(tmp_path / "listen.toml").sources] == ["front door"]
    refused("listen", "--init", words="overwrites nothing")
    # Enabled line by line, every setting is valid, and none is missing.
    lines = [re.sub(r"^# (?=\[|\w+ = )", "", line) for line in written.splitlines()]
    settings = "\n".join(lines).replace("${", "$ {").replace("tls = false", "tls = true")
    for other in ("threshold", "password_file"):  # each replaces an existing one
        settings = re.sub(rf"^{other} =", "# \\g<0>", settings, flags=re.M)
    (tmp_path / "all.toml").write_text(settings, encoding="utf-8")
    config = read_config(tmp_path / "all.toml")
    assert config.mqtt and config.webhooks and config.commands and len(config.sources) == 4
    for kind in (*TABLES.values(), *LISTS.values()):
        for setting in fields(kind):
            assert re.search(rf"^{setting.name} = ", "\n".join(lines), re.M), setting.name


SOURCE = '[[source]]\nname = "a"\nurl = "rtsp://camera.local/"\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "nothing to listen to"),
        ("[[source]", "is not valid TOML"),
        ('[[source]]\nname = "a"\n', "give one of url, file, microphone and stdin; it has none"),
        (SOURCE + 'file = "b"\n', "it has url and file"),
        (SOURCE + SOURCE.replace('"a"', '"Á"'), "another source has that name"),
        ('[[source]]\nurl = "rtsp://camera.local/"\n', "name is missing"),
        ('[[source]]\nname = "?!"\nstdin = "wav"\n', "needs a letter from a to z"),
        ('[[source]]\nname = "a"\nurl = "camera.local"\n', "must be an address that begins with rtsp://"),
        ('[source]\nname = "a"\n', r"must stand in double brackets: \[\[source\]\]"),
        (SOURCE + "stall_second = 3\n", "there is no setting stall_second: did you mean stall_seconds?"),
        (SOURCE + 'stall_seconds = "3"\n', "stall_seconds must be a number from 1 to 3600"),
        (SOURCE + "[alarms]\n", "there is no setting alarms: did you mean alarm?"),
        (SOURCE + "[alarm]\nthreshold = nan\n", "threshold must be a number from 0.001 to 1"),
        (SOURCE + "[alarm]\nconfirm_windows = true\n", "must be a whole number"),
        (SOURCE + '[alarm]\nquiet_hours = "22-7"\n', "must be a list of hours"),
        (SOURCE + '[categories]\ndog = "off"\n', "dog must be true, false or a threshold"),
        (SOURCE + '[mqtt]\nhost = "${NOT_SET_ANYWHERE}"\n', "NOT_SET_ANYWHERE, which is not set"),
        (SOURCE + '[mqtt]\nhost = "a"\npassword = "b"\n', "a password needs a user"),
        (SOURCE + '[mqtt]\nhost = "a"\ntopic = "a/#"\n', "must be a topic"),
        (SOURCE + '[alarm]\nsensitivity = "hihg"\n', "sensitivity must be one of low, normal, high"),
        (SOURCE + '[alarm]\nsensitivity = "high"\nthreshold = 0.3\n', "give one of sensitivity and threshold"),
        (SOURCE + '[page]\nhost = "0.0.0.0"\n', "can be reached from other computers: that needs a password"),
        (SOURCE + '[page]\nhost = "::"\n', "needs a password"),
        (SOURCE + '[page]\nhost = "camera.home"\n', "needs a password"),
        (SOURCE + '[page]\npassword = "short"\n', "must be a text of at least 8 letters"),
        (SOURCE + '[page]\npassword_file = "absent.txt"\n', "absent.txt: No such file"),
        (SOURCE + '[page]\npassword_file = ' + json.dumps(os.devnull), "its first line must be a text of at least 8"),
        (SOURCE + '[page]\nnames = ["http://pi.home"]\n', "names without http://"),
        (SOURCE + '[[webhook]]\nurl = "file:///etc/passwd"\n', "begins with http://"),
        (SOURCE + '[[command]]\nrun = "rm -rf /"\n', "must be a list of the program and its arguments"),
        (SOURCE + '[[command]]\nrun = ["a"]\non = ["now"]\n', "number 1: on must be"),
    ],
)  # fmt: skip
def test_wrong_setting_is_reported_with_a_correction(tmp_path, text, words):
    path = tmp_path / "listen.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=words.replace("?", r"\?")) as error:
        read_config(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_permanent_errors_are_reported_at_once(refused, tmp_path, monkeypatch):
    """Unknown categories, missing files and packages."""
    monkeypatch.setitem(sys.modules, "paho.mqtt", None)
    for more, words in (
        ("[categories]\nsirene = false\n", "the detector knows no sirene: siren"),
        ('[[source]]\nname = "b"\nfile = "absent.wav"\n', '"b": absent.wav: No such file'),
        ('[mqtt]\nhost = "broker"\n', "needs the package paho-mqtt: pip install -r requirements/live.txt"),
    ):
        (tmp_path / "listen.toml").write_text(SOURCE + more, encoding="utf-8")
        refused("listen", words=words)
    assert without_secrets("rtsp://user:secret@camera.local:554/a?token=1#x") == "rtsp://camera.local:554/a"


def test_alarm_is_raised_within_three_seconds_of_the_siren(windows, opened_detector):
    """Measured in processed sound; delays of a busy computer do not count."""
    told = []

    class Ears:
        on_alarm_start = staticmethod(lambda event: told.append((event.event.start, now)))
        on_event_end = staticmethod(lambda event: None)

    detector = opened_detector[1]
    policy = Policy(AlarmConfig(cooldown_seconds=0), {}, detector.threshold)
    tracker = Tracker("a", policy, detector, HOP_S, [Ears])
    for window in windows:
        now = window.end
        tracker.add(window, now)
    assert [start for start, _ in told] == pytest.approx([5, 18], abs=HOP_S)
    assert all(now - start < 3 for start, now in told)
