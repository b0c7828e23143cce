"""Alarms by MQTT, in such a way that Home Assistant finds them by itself.

Topics, below ``topic`` of the settings ("danger-safe"):

    status                 online or offline, retained; offline is the last will, too
    SOURCE/status          online while sound comes from the source, retained
    SOURCE/state           {"alarm": "ON" or "OFF", "category", "score", …}, retained: what was heard last
    SOURCE/event           the event as in events.jsonl with "phase", begin or end; not retained
    homeassistant/device/… the discovery of each source's sensors, retained

What is retained is sent anew whenever the broker or Home Assistant comes back, so that it tells of now. Events that
happen while the broker is away wait for it.
"""

import json
import secrets
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol

from danger_safe.core.errors import UserError
from danger_safe.live.alarms import LiveEvent
from danger_safe.live.config import MqttConfig, slug

if TYPE_CHECKING:
    from paho.mqtt.client import Client

KEEPALIVE_S = 20  # a broker that is gone without a word is noticed after one and a half times as much
MAX_WAITING = 1000  # events, while the broker is away
MAX_PAUSE_S = 30  # between two tries to connect


class NamedSource(Protocol):
    """What is told of a source."""

    name: str
    slug: str
    status: str


class Mqtt:
    """A connection to the broker that is made again when it breaks."""

    def __init__(self, config: MqttConfig, sources: Iterable[NamedSource], say: Callable[[str], None]):
        """Raises UserError where the package or a certificate is missing."""
        self._config, self._say = config, say
        self._sources = {source.name: source for source in sources}
        self._online: dict[str, bool] = {}
        self._states: dict[str, dict] = {
            name: {"alarm": "OFF", "category": None, "score": None, "started_at": None} for name in self._sources
        }
        self._is_told = False
        self._client = self._new_client()

    def _new_client(self) -> "Client":
        try:
            from paho.mqtt import client as paho
            from paho.mqtt.enums import CallbackAPIVersion
        except ImportError as error:
            raise UserError("[mqtt] needs the package paho-mqtt: pip install -r requirements/live.txt") from error
        config = self._config
        client = paho.Client(CallbackAPIVersion.VERSION2, f"danger-safe-{secrets.token_hex(6)}")
        if config.user:
            client.username_pw_set(config.user, config.password or None)
        if config.tls:
            try:
                client.tls_set(ca_certs=config.ca_file or None)
            except OSError as error:  # ssl.SSLError is one
                raise UserError(f"[mqtt]: ca_file {config.ca_file}: {error.strerror or error}") from error
        client.max_queued_messages_set(MAX_WAITING)
        client.reconnect_delay_set(1, MAX_PAUSE_S)
        client.will_set(self._topic("status"), "offline", qos=1, retain=True)
        client.on_connect, client.on_connect_fail = self._connected, self._not_connected
        client.on_disconnect, client.on_message = self._disconnected, self._home_assistant_is_back
        return client

    def start(self) -> None:
        """Connect, in a thread; where the broker is not there yet, when it is."""
        config = self._config
        self._client.connect_async(config.host, config.port or (8883 if config.tls else 1883), KEEPALIVE_S)
        self._client.loop_start()

    def begin(self, event: LiveEvent) -> None:
        """Switch the source's sensor on."""
        self._set_state(event, "ON")
        self._send_event("begin", event)

    def end(self, event: LiveEvent) -> None:
        """Switch the source's sensor off, after an alarm."""
        if event.is_alarm:
            self._set_state(event, "OFF")
            self._send_event("end", event)

    def update(self) -> None:
        """Tell which sources give sound. Is to be called every second or so."""
        for name, source in self._sources.items():
            online = source.status in ("listening", "silent")
            if self._online.get(name) != online:
                self._online[name] = online
                self._retain(self._topic(source.slug, "status"), "online" if online else "offline")

    def close(self, timeout_s: float) -> None:
        """Say that nobody listens any more, and disconnect."""
        for source in self._sources.values():
            self._retain(self._topic(source.slug, "status"), "offline")
        last = self._client.publish(self._topic("status"), "offline", qos=1, retain=True)
        deadline = time.monotonic() + timeout_s
        while self._client.is_connected() and not last.is_published() and time.monotonic() < deadline:
            time.sleep(0.02)
        self._client.disconnect()
        self._client.loop_stop()

    def discovery(self) -> dict[str, dict]:
        """What Home Assistant is told of each source: discovery topic -> message."""
        prefix, unique = self._config.discovery, slug(self._config.topic)
        messages = {}
        for source in self._sources.values():
            identifier = f"{unique}-{source.slug}"
            state = self._topic(source.slug, "state")
            messages[f"{prefix}/device/{identifier}/config"] = {
                "device": {
                    "identifiers": [identifier],
                    "name": source.name,
                    "manufacturer": "danger-safe",
                    "model": "Detector of dangerous sounds",
                },
                "origin": {"name": "danger-safe"},
                "availability": [
                    {"topic": self._topic("status")},
                    {"topic": self._topic(source.slug, "status")},
                ],
                "availability_mode": "all",
                "state_topic": state,
                "components": {
                    "danger": {
                        "platform": "binary_sensor",
                        "unique_id": f"{identifier}-danger",
                        "name": "Danger",
                        "device_class": "safety",
                        "value_template": "{{ value_json.alarm }}",
                        "json_attributes_topic": state,
                    },
                    "heard": {
                        "platform": "sensor",
                        "unique_id": f"{identifier}-heard",
                        "name": "Heard last",
                        "icon": "mdi:ear-hearing",
                        "value_template": "{{ value_json.category }}",
                    },
                    "score": {
                        "platform": "sensor",
                        "unique_id": f"{identifier}-score",
                        "name": "Certainty",
                        "icon": "mdi:percent",
                        "unit_of_measurement": "%",
                        "state_class": "measurement",
                        "value_template": "{{ (value_json.score * 100) | round if value_json.score is not none else "
                        "none }}",
                    },
                },
            }
        return messages

    def _topic(self, *parts: str) -> str:
        return "/".join((self._config.topic, *parts))

    def _set_state(self, event: LiveEvent, alarm: str) -> None:
        source = self._sources[event.source]
        self._states[source.name] = {"alarm": alarm, **{k: v for k, v in event.record().items() if k != "alarm"}}
        self._retain(self._topic(source.slug, "state"), json.dumps(self._states[source.name], ensure_ascii=False))

    def _send_event(self, phase: str, event: LiveEvent) -> None:
        message = {"phase": phase, **event.record()}
        topic = self._topic(self._sources[event.source].slug, "event")
        self._client.publish(topic, json.dumps(message, ensure_ascii=False), qos=1)

    def _retain(self, topic: str, payload: str) -> None:
        """Of what is retained only the newest counts: quality of service 0 sends no older one after it, as 1 might when
        a connection is made again; what was lost is sent anew then."""
        self._client.publish(topic, payload, qos=0, retain=True)

    def _send_all(self) -> None:
        if self._config.discovery:
            for topic, message in self.discovery().items():
                self._retain(topic, json.dumps(message, ensure_ascii=False))
        for name, source in self._sources.items():
            self._retain(self._topic(source.slug, "state"), json.dumps(self._states[name], ensure_ascii=False))
            self._retain(self._topic(source.slug, "status"), "online" if self._online.get(name) else "offline")
        self._retain(self._topic("status"), "online")

    def _connected(self, client: "Client", _data, _flags, reason, _properties) -> None:
        if reason.is_failure:
            self._tell(f"the broker refuses: {reason}")
            return
        if self._is_told:
            self._say(f"mqtt {self._config.host}: connected again")
        self._is_told = False
        if self._config.discovery:
            client.subscribe(f"{self._config.discovery}/status")
        self._send_all()

    def _home_assistant_is_back(self, _client, _data, message) -> None:
        if message.payload == b"online" and not message.retain:
            self._send_all()

    def _not_connected(self, _client, _data) -> None:
        self._tell("cannot be reached")

    def _disconnected(self, _client, _data, _flags, reason, _properties) -> None:
        if reason.is_failure:
            self._tell(f"the connection broke ({reason})")

    def _tell(self, problem: str) -> None:
        if not self._is_told:
            self._is_told = True
            self._say(f"mqtt {self._config.host}: {problem}; it is tried again")
