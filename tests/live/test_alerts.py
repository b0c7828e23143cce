"""Alarms: a real MQTT broker, real web requests, the log, and which events become alarms."""

import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from datetime import datetime

import numpy as np
import pytest
from helpers import PATIENCE_S, ROOT, wait_for
from listening import PostServer

from danger_safe.audio.windows import ScoredWindow
from danger_safe.detection.detector import load_builtin
from danger_safe.detection.events import Event
from danger_safe.live import alerts
from danger_safe.live.alarms import LiveEvent, Policy, Tracker, default_threshold
from danger_safe.live.config import AlarmConfig, CommandConfig, MqttConfig, SourceConfig, WebhookConfig
from danger_safe.live.event_log import EventLog

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
needs_broker = pytest.mark.skipif(MOSQUITTO is None, reason="the broker mosquitto is not installed")


def event(name="1", is_alarm=True):
    tags = (("siren", 0.8), ("alarm", 0.4))
    return LiveEvent(
        name, "front door", Event(3.0, 5.0, 4.0, 0.9, np.zeros(2), tags), "siren", 0.3, 1e9, 1e9 + 2, is_alarm
    )


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class Front:
    name, slug, status = "front door", "front-door", "listening"


@contextmanager
def broker(folder, port, *settings):
    """Start a broker; a later one in the same folder still has the subscribers of the first."""
    lines = [
        f"listener {port} 127.0.0.1",
        "persistence true",
        f"persistence_location {folder}/",
        "user root",
        *settings,
    ]
    (folder / "mosquitto.conf").write_text("\n".join(lines))
    with open(folder / "mosquitto.log", "wb") as log:
        process = subprocess.Popen([MOSQUITTO, "-c", str(folder / "mosquitto.conf")], stderr=log)

    def takes_connections():
        assert process.poll() is None, (folder / "mosquitto.log").read_text()
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return True

    try:
        wait_for(takes_connections)
        yield process
    finally:
        process.terminate()  # not killed, so that it saves its subscribers
        process.wait()


def subscriber(port, name, **tls):
    """A client that receives all messages from now on: (topic, payload, retained). The broker stores messages with
    quality of service 1 while it is disconnected."""
    paho = pytest.importorskip("paho.mqtt.client")
    received, subscribed = [], threading.Event()
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, name, clean_session=False)
    client.on_message = lambda _c, _d, message: received.append(
        (message.topic, message.payload.decode(), message.retain)
    )
    client.on_connect = lambda client, *_: client.subscribe("#", qos=1)
    client.on_subscribe = lambda *_: subscribed.set()
    if tls:
        client.username_pw_set("listener", "secret")
        client.tls_set(**tls)
    client.reconnect_delay_set(1, 1)
    client.connect_async("127.0.0.1", port)
    client.loop_start()
    assert subscribed.wait(PATIENCE_S)
    return client, received


@needs_broker
def test_restarted_broker_gets_the_current_state(tmp_path):
    from danger_safe.live.mqtt import Mqtt

    port, messages = free_port(), []
    mqtt = Mqtt(MqttConfig("127.0.0.1", port), [Front], messages.append)
    mqtt.start()
    mqtt.update()
    with broker(tmp_path, port, "allow_anonymous true"):
        client, received = subscriber(port, "all along")
        newest = lambda: {topic: payload for topic, payload, _ in received}  # noqa: E731
        phases = lambda: list(dict.fromkeys(  # some may come twice, as quality of service 1 says  # noqa: E731
            (json.loads(payload)["id"], json.loads(payload)["phase"]) for topic, payload,
            _ in received if topic.endswith("event")
        ))  # fmt: skip
        wait_for(lambda: newest().get("danger-safe/status") == "online")
        wait_for(lambda: newest().get("danger-safe/front-door/status") == "online")
        mqtt.on_alarm_start(event("1"))
        wait_for(lambda: '"alarm": "ON"' in newest()["danger-safe/front-door/state"])
        wait_for(phases)
    wait_for(lambda: any("it is tried again" in line for line in messages))
    mqtt.on_event_end(event("1"))  # while no broker is running
    mqtt.on_alarm_start(event("2"))
    mqtt.on_event_end(event("2"))
    mqtt.on_alarm_start(event("3"))
    with broker(tmp_path, port, "allow_anonymous true"):
        wait_for(lambda: len(phases()) >= 5)
        assert phases() == [("1", "begin"), ("1", "end"), ("2", "begin"), ("2", "end"), ("3", "begin")]
        late, everything = subscriber(port, "late")
        wait_for(lambda: len(everything) >= 4)
        retained = {topic: payload for topic, payload, is_retained in everything if is_retained}
        state = json.loads(retained["danger-safe/front-door/state"])
        assert (state["alarm"], state["id"], state["category"], state["score"]) == ("ON", "3", "siren", 0.9)
        assert retained["danger-safe/status"] == retained["danger-safe/front-door/status"] == "online"
        check_discovery(retained)
        client.publish("homeassistant/status", "online")  # after its restart, it gets everything
        wait_for(lambda: sum(topic.endswith("/config") for topic, _, _ in everything) >= 2)
        Front.status = "offline"
        mqtt.update()
        wait_for(lambda: dict(e[:2] for e in everything)["danger-safe/front-door/status"] == "offline")
        Front.status = "listening"
        mqtt.close(5)
        wait_for(lambda: dict(e[:2] for e in everything)["danger-safe/status"] == "offline")
        late.loop_stop()
    assert sum("tried again" in line for line in messages) == sum("connected again" in line for line in messages) <= 2
    client.loop_stop()


def check_discovery(retained):
    """Check a message against Home Assistant's schema of device discovery (home-assistant/core,
    components/mqtt/schemas.py): all required keys, no unknown ones. Home Assistant ignores other messages."""
    (topic,) = [topic for topic in retained if topic.startswith("homeassistant/")]
    message = json.loads(retained[topic])
    assert topic == "homeassistant/device/danger-safe-front-door/config"
    assert set(message) == {"device", "origin", "availability", "availability_mode", "state_topic", "components"}
    device_keys = {"identifiers", "connections", "manufacturer", "model", "name", "hw_version", "serial_number",
                   "sw_version", "via_device", "suggested_area", "configuration_url"}  # fmt: skip
    assert message["device"]["identifiers"] and set(message["device"]) <= device_keys
    assert message["origin"]["name"] and set(message["origin"]) <= {"name", "sw_version", "support_url"}
    assert message["availability_mode"] == "all"
    assert all(retained[place["topic"]] == "online" for place in message["availability"])
    common = {"platform", "unique_id", "name", "icon", "value_template", "json_attributes_topic"}
    known = {"binary_sensor": {"device_class"}, "sensor": {"unit_of_measurement", "state_class"}}
    parts = message["components"]
    assert [part["platform"] for part in parts.values()] == ["binary_sensor", "sensor", "sensor"]
    assert len({part["unique_id"] for part in parts.values()}) == 3
    for part in parts.values():
        assert set(part) <= common | known[part["platform"]]
    jinja2 = pytest.importorskip("jinja2")
    now, before = json.loads(retained[message["state_topic"]]), {"alarm": "OFF", "category": None, "score": None}
    shown = [
        [jinja2.Template(part["value_template"]).render(value_json=state) for part in parts.values()]
        for state in (now, before)
    ]
    assert shown == [["ON", "siren", "90.0"], ["OFF", "None", "None"]]  # Home Assistant reads "None" as unknown


@needs_broker
@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl, which makes the certificate, is not installed")
def test_a_broker_with_tls_and_a_password_and_the_last_will(tmp_path):
    def make(*command):
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)

    make("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "ca.pem", "-days",
    "2",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1")  # fmt: skip
    make("mosquitto_passwd", "-c", "-b", "users", "listener", "secret")
    (tmp_path / "users").chmod(0o700)
    port = free_port()
    code = f"""
from danger_safe.live.config import MqttConfig
from danger_safe.live.mqtt import Mqtt
import sys
class Front:
    name, slug, status = "front door", "front-door", "listening"
mqtt = Mqtt(MqttConfig("127.0.0.1", {port}, "listener", sys.argv[1], True, "ca.pem", discovery=False), [Front], print)
mqtt.start()
sys.stdin.read()
"""
    settings = ["allow_anonymous false", "password_file users", "cafile ca.pem", "certfile ca.pem", "keyfile key.pem"]
    settings = [f"{s.split()[0]} {tmp_path / s.split()[1]}" if "file" in s else s for s in settings]

    def connect(password):
        return subprocess.Popen(
            [sys.executable, "-u", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}", password],
            cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    with broker(tmp_path, port, *settings):
        # It subscribes before anything is sent; a late subscriber would get these messages as retained ones.
        client, received = subscriber(port, "all along", ca_certs=str(tmp_path / "ca.pem"))
        right, wrong = connect("secret"), connect("guess")
        wait_for(lambda: ("danger-safe/status", "online", False) in received)
        assert b"refuses: Not authorized; it is tried again" in wrong.stdout.readline()
        right.kill()  # killed: the broker publishes its last will
        wait_for(lambda: ("danger-safe/status", "offline", False) in received)
        assert not any(topic.startswith("homeassistant") for topic, _, _ in received)
        wrong.kill()
        for process in (right, wrong):
            process.communicate()
        client.loop_stop()


def test_webhook_is_retried_after_temporary_errors(monkeypatch):
    monkeypatch.setattr(alerts, "FIRST_PAUSE_S", 0.01)
    for status, failures, delivered in ((503, 3, ["1", "2"]), (401, 1, ["2"]), (307, 1, ["2"])):
        messages = []
        with PostServer(failures=failures, status=status) as server:
            hook = alerts.Webhook(
                WebhookConfig(f"http://127.0.0.1:{server.port}/?key=secret", on=("begin",)), messages.append
            )
            hook.on_alarm_start(event("1"))
            hook.on_alarm_start(event("2"))
            hook.on_event_end(event("2"))  # not asked for
            hook.close(30)
            assert [json.loads(post.body)["id"] for post in server.posts] == delivered
            assert server.posts[0].signature is None
        assert f"HTTP {status}" in messages[0] and "secret" not in "".join(messages)
        assert len(messages) == (2 if status == 503 else 1)
    messages = []
    hook = alerts.Webhook(WebhookConfig(f"http://127.0.0.1:{free_port()}/"), messages.append)
    hook.on_alarm_start(event())
    wait_for(lambda: messages)
    hook.close(0)
    assert "refused" in messages[0] and "1 messages were not delivered" in messages[1]


def test_command_gets_the_event_in_its_environment_without_a_shell(tmp_path):
    messages = []
    code = (
        "import os, sys; open(sys.argv[1], 'w').write(os.environ['DANGER_EVENT'] + sys.argv[2]); sys.exit('it broke')"
    )
    config = CommandConfig((sys.executable, "-c", code, str(tmp_path / "out"), "$(touch hacked) ; *"))
    command = alerts.Command(config, messages.append)
    command.on_alarm_start(event())
    command.on_event_end(event())  # not asked for
    command.close(60)
    text = (tmp_path / "out").read_text(encoding="utf-8")
    assert text.endswith("$(touch hacked) ; *")
    message = json.loads(text.removesuffix("$(touch hacked) ; *"))
    assert message["phase"] == "begin" and message["heard"][0] == {"category": "siren", "similarity": 0.8}
    assert messages == [f"command {sys.executable}: exit status 1 (it broke); given up"]


def test_events_are_logged_completely_or_not_at_all(tmp_path, monkeypatch):
    path, messages = tmp_path / "events.jsonl", []
    path.write_bytes(b'{"id": "0"}\n{"id": "torn by a power c')
    log = EventLog(path, messages.append)
    assert path.read_bytes() == b'{"id": "0"}\n'

    def full(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        log.on_event_end(event("1"))
        log.on_event_end(event("2", is_alarm=False))
        assert path.read_bytes() == b'{"id": "0"}\n'
    log.flush()
    path.rename(tmp_path / "events.jsonl.1")  # as logrotate does it
    log.on_event_end(event("3"))
    log.close()
    lines = [json.loads(line) for name in ("events.jsonl.1", "events.jsonl") for line in (tmp_path / name).open()]
    assert [line["id"] for line in lines] == ["0", "1", "2", "3"]
    assert [line["alarm"] for line in lines[1:]] == [True, False, True]
    assert len(messages) == 2 and "No space left" in messages[0] and "can be written again" in messages[1]


class Named:
    """A detector whose embeddings are category numbers."""

    @staticmethod
    def tags(embedding):
        return ((("dog", "siren", "alarm")[int(embedding[0])], 0.9),)


def decisions(config, categories, scores, kind=1, begin=1e9):
    """Return (alarms that began, with their times; ended events, with the reason why they were not alarms)."""
    started, ended = [], []

    class Ears:
        on_alarm_start = staticmethod(lambda event: started.append(event.category))
        on_event_end = staticmethod(lambda event: ended.append(event.reason or event.category))

    tracker = Tracker("a", Policy(config, categories, config.threshold or 0.5), Named, 0.5, [Ears])
    for number, score in enumerate(scores):
        window = ScoredWindow(
            number / 2, number / 2 + 3, score, score, np.array([kind]), band_levels=np.zeros((10, 32))
        )
        tracker.add(window, begin + window.end)
    tracker.finish()
    return started, ended


def test_which_events_become_alarms():
    one, two = [0.0] * 8 + [0.8] * 6 + [0.0] * 20, [0.0] * 8 + [0.8] * 6 + [0.0] * 20 + [0.7] * 6 + [0.0] * 20
    siren = (["siren"], ["siren"])
    assert decisions(AlarmConfig(), {}, one) == siren
    assert decisions(AlarmConfig(), {}, two) == (["siren"], ["siren", "cool-down"])
    assert decisions(AlarmConfig(cooldown_seconds=5), {}, two) == (["siren"] * 2, ["siren"] * 2)
    assert decisions(AlarmConfig(), {"siren": False}, one) == ([], ["category off"])
    assert decisions(AlarmConfig(), {"siren": True, "dog": False}, one) == siren
    assert decisions(AlarmConfig(), {"siren": 0.9}, one) == ([], [])
    assert decisions(AlarmConfig(threshold=0.9), {}, one) == ([], [])
    assert decisions(AlarmConfig(threshold=0.9), {"siren": 0.75}, one) == siren
    assert decisions(AlarmConfig(threshold=0.9), {"siren": 0.75}, one, kind=0) == ([], [])
    assert decisions(AlarmConfig(confirm_windows=6), {}, one) == siren
    assert decisions(AlarmConfig(confirm_windows=7), {}, one) == ([], ["not confirmed"])
    assert decisions(AlarmConfig(min_seconds=30), {}, one) == ([], [])
    night = datetime(2026, 1, 1, 23, 30).timestamp()
    hours = (datetime(2026, 1, 1, 22).time(), datetime(2026, 1, 1, 7).time())
    assert decisions(AlarmConfig(quiet_hours=(hours,)), {}, one, begin=night) == ([], ["quiet hours"])
    assert decisions(AlarmConfig(quiet_hours=(hours[::-1],)), {}, one, begin=night) == siren
    assert decisions(AlarmConfig(quiet_hours=(hours,)), {}, one, begin=night + 10 * 3600) == siren


def test_a_source_may_have_its_own_sensitivity():
    builtin = load_builtin()
    low, normal, high = map(builtin.threshold_of, ("low", "normal", "high"))
    a, ours = SourceConfig("a", stdin="wav"), SourceConfig("a", stdin="wav", sensitivity="high")
    assert default_threshold(a, AlarmConfig(), builtin) == normal == builtin.threshold
    assert default_threshold(a, AlarmConfig(sensitivity="low"), builtin) == low
    assert default_threshold(a, AlarmConfig(threshold=0.123), builtin) == 0.123
    for alarm in (AlarmConfig(), AlarmConfig(sensitivity="low"), AlarmConfig(threshold=0.123)):
        assert default_threshold(ours, alarm, builtin) == high


def test_a_receiver_that_hangs_does_not_block_the_others(monkeypatch):
    monkeypatch.setattr(alerts, "TIMEOUT_S", PATIENCE_S)
    messages = []
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hook = alerts.Webhook(WebhookConfig(f"http://127.0.0.1:{silent.getsockname()[1]}/"), messages.append)
        begun = time.monotonic()
        for number in range(alerts.MAX_WAITING + 5):
            hook.on_alarm_start(event(str(number)))
        hook.close(0)
        assert time.monotonic() - begun < alerts.TIMEOUT_S
    assert 3 <= sum("one more was dropped" in line for line in messages) <= 5
