"""Send alarms by MQTT, with the discovery messages by which Home Assistant finds the sensors.

Topics, below ``topic`` of the settings ("danger-safe"):

    status                 online or offline, retained; offline is the last will, too
    SOURCE/status          online while sound comes from the source, retained
    SOURCE/state           {"alarm": "ON" or "OFF", "category", "score", …} of the last alarm, retained
    SOURCE/event           the event as in events.jsonl with "phase", begin or end; not retained
    homeassistant/device/… the discovery of each source's sensors, retained

Retained messages are sent again whenever the broker or Home Assistant comes back, so that they are up to date. Events
that happen while the broker is away are queued.
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

KEEPALIVE_S = 20  # seconds; a lost broker is noticed after one and a half times that
MAX_WAITING = 1000  # queued events while the broker is away
MAX_PAUSE_S = 30  # seconds between two attempts to connect


class NamedSource(Protocol):
    """The attributes of a source that are sent."""

    name: str
    slug: str
    status: str


class Mqtt:
    """A connection to the broker that reconnects by itself."""

    def __init__(self, config: MqttConfig, sources: Iterable[NamedSource], say: Callable[[str], None]):
        """Raises UserError if the package or a certificate is missing."""
        self._config, self._say = config, say
        self._sources = {source.name: source for source in sources}
        self._online: dict[str, bool] = {}
        self._states: dict[str, dict] = {
            name: {"alarm": "OFF", "category": None, "score": None, "started_at": None} for name in self._sources
        }
        self._has_reported = False  # the problem that lasts
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
        client.on_connect, client.on_connect_fail = self._on_connect, self._on_connect_fail
        client.on_disconnect, client.on_message = self._on_disconnect, self._on_home_assistant_status
        return client

    def start(self) -> None:
        """Connect, in a thread, as soon as the broker can be reached."""
        config = self._config
        self._client.connect_async(config.host, config.port or (8883 if config.tls else 1883), KEEPALIVE_S)
        self._client.loop_start()

    def on_alarm_start(self, event: LiveEvent) -> None:
        """Switch the source's sensor on."""
        self._set_state(event, "ON")
        self._send_event("begin", event)

    def on_event_end(self, event: LiveEvent) -> None:
        """Switch the source's sensor off after an alarm."""
        if event.is_alarm:
            self._set_state(event, "OFF")
            self._send_event("end", event)

    def update(self) -> None:
        """Send which sources have sound; to be called about every second."""
        for name, source in self._sources.items():
            online = source.status in ("listening", "silent")
            if self._online.get(name) != online:
                self._online[name] = online
                self._retain(self._topic(source.slug, "status"), "online" if online else "offline")

    def close(self, timeout_s: float) -> None:
        """Send that the service is offline, and disconnect after at most ``timeout_s`` seconds."""
        for source in self._sources.values():
            self._retain(self._topic(source.slug, "status"), "offline")
        last = self._client.publish(self._topic("status"), "offline", qos=1, retain=True)
        deadline = time.monotonic() + timeout_s
        while self._client.is_connected() and not last.is_published() and time.monotonic() < deadline:
            time.sleep(0.02)
        self._client.disconnect()
        self._client.loop_stop()

    def discovery(self) -> dict[str, dict]:
        """Return the discovery message of each source by its topic."""
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
                "availability": [{"topic": self._topic("status")}, {"topic": self._topic(source.slug, "status")}],
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
                        "value_template": (
                            "{{ (value_json.score * 100) | round if value_json.score is not none else none }}"
                        ),
                    },
                },
            }
        return messages

    def _topic(self, *parts: str) -> str:
        return "/".join((self._config.topic, *parts))

    def _set_state(self, event: LiveEvent, alarm: str) -> None:
        source = self._sources[event.source]
        self._states[source.name] = {"alarm": alarm, **{k: v for k, v in event.to_dict().items() if k != "alarm"}}
        self._retain(self._topic(source.slug, "state"), json.dumps(self._states[source.name], ensure_ascii=False))

    def _send_event(self, phase: str, event: LiveEvent) -> None:
        message = {"phase": phase, **event.to_dict()}
        topic = self._topic(self._sources[event.source].slug, "event")
        self._client.publish(topic, json.dumps(message, ensure_ascii=False), qos=1)

    def _retain(self, topic: str, payload: str) -> None:
        """Publish a retained message with quality of service 0.

        After a reconnection, 1 might deliver an older message after a newer one; a message that 0 loses is sent again.
        """
        self._client.publish(topic, payload, qos=0, retain=True)

    def _send_all(self) -> None:
        """Send all retained messages."""
        if self._config.discovery:
            for topic, message in self.discovery().items():
                self._retain(topic, json.dumps(message, ensure_ascii=False))
        for name, source in self._sources.items():
            self._retain(self._topic(source.slug, "state"), json.dumps(self._states[name], ensure_ascii=False))
            self._retain(self._topic(source.slug, "status"), "online" if self._online.get(name) else "offline")
        self._retain(self._topic("status"), "online")

    def _on_connect(self, client: "Client", _data, _flags, reason, _properties) -> None:
        if reason.is_failure:
            self._report(f"the broker refuses: {reason}")
            return
        if self._has_reported:
            self._say(f"mqtt {self._config.host}: connected again")
        self._has_reported = False
        if self._config.discovery:
            client.subscribe(f"{self._config.discovery}/status")
        self._send_all()

    def _on_home_assistant_status(self, _client, _data, message) -> None:
        if message.payload == b"online" and not message.retain:
            self._send_all()

    def _on_connect_fail(self, _client, _data) -> None:
        self._report("cannot be reached")

    def _on_disconnect(self, _client, _data, _flags, reason, _properties) -> None:
        if reason.is_failure:
            self._report(f"the connection broke ({reason})")

    def _report(self, problem: str) -> None:
        """Report a problem, once until the connection is restored."""
        if not self._has_reported:
            self._has_reported = True
            self._say(f"mqtt {self._config.host}: {problem}; it is tried again")
