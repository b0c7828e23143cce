"""The page of listen.py over real sockets: what it shows, what it stores, and whom it refuses."""

import json
import socket
from datetime import datetime, timedelta
from urllib.parse import quote

import numpy as np
import pytest
from helpers import wait_for
from live_page import Client, Stage, free_port

from danger_safe.core.errors import UserError
from danger_safe.live import event_windows, page_access
from danger_safe.live.config import AlarmConfig
from danger_safe.live.page_access import Access
from danger_safe.live.page_texts import ENGLISH, VIETNAMESE, choose_language
from danger_safe.live.verdicts import load_windows, read_verdicts


def test_page_shows_what_is_detected_and_why_there_is_no_alarm(tmp_path, monkeypatch):
    monkeypatch.setattr("danger_safe.live.monitor.BEHIND_S", 600.0)  # the computer may be busy
    alarm = AlarmConfig(confirm_windows=2, cooldown_seconds=60, min_seconds=1)
    with Stage(tmp_path, ("front door", "Bếp <b>"), alarm) as stage:
        client, door = stage.client(), stage.sources["front door"]

        def why(language="en"):
            return client.state(accept_language=language)["sources"][0]["why"]

        assert why() == "Connecting: no sound has come yet." and "no sound has come" not in why("vi")
        door.status, door.problem = "offline", "Connection <refused>"
        assert why() == "Not connected: Connection <refused>. Retrying."
        door.status = "listening"
        assert why().startswith("Starting")
        stage.hear("front door", [0.1] * 20)
        assert why() == "The score is below the threshold." and why("vi") == "Điểm thấp hơn ngưỡng."
        state = client.state()["sources"][0]
        assert (state["levelText"], state["scoreText"]) == ("−26 dBFS", "0.10, alarm from 0.70")
        assert client.state(accept_language="vi-VN")["sources"][0]["scoreText"] == "0,10, báo động từ 0,70"
        assert state["tags"] == ["Siren 88\u00a0%", "Police car (siren) 62\u00a0%", "Speech 12\u00a0%"]
        stage.hear("front door", [0.0], level=0.0, silent=True)
        assert why().startswith("Silence") and client.state()["sources"][0]["levelText"] == "−100 dBFS"
        stage.hear("front door", [0.9], kind=1)
        assert why() == "It has not lasted 1.0 s yet."
        stage.hear("front door", [0.9] * 3, kind=1)
        assert why() == "dog: switched off." and not client.state()["danger"]
        stage.hear("front door", [0.05] * 20)
        stage.hear("front door", [0.9] * 6)
        state = client.state()
        assert state["danger"] and state["alarm"] == "DANGER: front door: siren"
        assert why().startswith("There is one: siren since ")
        stage.hear("front door", [0.05] * 20)
        assert not client.state()["danger"]
        stage.hear("front door", [0.9] * 6)
        assert why().startswith("siren: cool-down, ") and "siren: thời gian chờ" in why("vi")
        assert client.state()["sources"][1]["name"] == "Bếp <b>"
        assert "Bếp &lt;b&gt;" in client.open()[1] and "<b>" not in client.open()[1]
        monkeypatch.setattr("danger_safe.live.monitor.BEHIND_S", 0.0)
        assert why() == "The computer is too slow: sound is waiting to be processed."
        monkeypatch.setattr("danger_safe.live.monitor.BEHIND_S", 600.0)
        stage.page.on_disconnect("front door")
        door.status = "done"
        assert why() == "Finished."
    now = datetime.now()
    around = (
        (now - timedelta(hours=2)).time().replace(microsecond=0),
        (now + timedelta(hours=2)).time().replace(second=0),
    )
    with Stage(tmp_path, alarm=AlarmConfig(confirm_windows=3, quiet_hours=(around,))) as stage:
        stage.hear("front door", [0.1] * 20 + [0.9] * 2)
        assert stage.client().state()["sources"][0]["why"] == "siren: not confirmed yet, 2 of 3 steps."
        stage.hear("front door", [0.9] * 2)
        assert stage.client().state()["sources"][0]["why"] == f"siren: quiet hours until {around[1]:%H:%M}."


def test_texts_in_both_languages():
    assert set(ENGLISH) == set(VIETNAMESE)
    for key, text in ENGLISH.items():
        named = {part.partition("}")[0] for part in text.split("{")[1:]}
        assert named == {part.partition("}")[0] for part in VIETNAMESE[key].split("{")[1:]}, key
    accepted = {"": "en", "vi": "vi", "vi-VN,en;q=0.9": "vi", "en-GB,vi;q=0.9": "en", "de,fr;q=0.9,vi;q=0.1": "vi",
                "vi;q=0,de": "en", "x;q=,;q=vi,*": "en"}  # fmt: skip
    assert {header: choose_language("", header) for header in accepted} == accepted
    assert choose_language("vi", "en") == "vi" and choose_language("../vi", "en") == "en"


def test_only_listed_events_have_sounds_and_pictures(tmp_path):
    (tmp_path / "secret.flac").write_bytes(b"not an event's")
    with Stage(tmp_path) as stage:
        client = stage.client()
        with_sound, without = stage.plant("front door"), stage.plant("front door", sound=False)
        (tmp_path / "recordings" / "other.flac").write_bytes(b"not an event's")
        wait_for(lambda: stage.windows_file(without).exists())
        status, headers, sound = client.ask(f"/sound/{with_sound}")
        assert (status, headers["Content-Type"], sound[:4]) == (200, "audio/flac", b"fLaC")
        status, headers, part = client.ask(f"/sound/{with_sound}", range="bytes=4-9")
        assert (status, part) == (206, sound[4:10])
        assert client.ask(f"/sound/{without}")[0] == 404
        for name, has_sound in ((with_sound, True), (without, False)):
            status, headers, picture = client.ask(f"/picture/{name}?of=ws")
            assert (status, headers["Content-Type"]) == (200, "image/svg+xml")
            assert (b"data:image/png;base64," in picture) == has_sound and b"polyline" in picture
        stage.windows_file(with_sound).write_bytes(b"damaged")
        assert client.ask(f"/picture/{with_sound}")[0] == 200  # it was drawn once
        (tmp_path / "recordings" / f"{without}.flac").write_bytes(b"damaged")
        assert client.ask(f"/picture/{without}")[0] == 404
        places = ("../secret", "../secret.flac", "..\\secret", "other", "../recordings/other", f"./{with_sound}", "%00",
        ".", "..",
                  str(tmp_path / "secret"), with_sound + "/..", with_sound + "\0", "a" * 5000)  # fmt: skip
        for folder in ("/sound/", "/picture/", "/"):
            for name in places:
                assert client.ask(folder, raw_path=folder + quote(name, safe=""))[0] == 404, (folder, name)
        for path in (
            "/../events.jsonl",
            "/sound/../../secret.flac",
            "/page.html",
            "/events.jsonl",
            "/login",
            "/page_files/page.js",
        ):
            assert client.ask(path)[0] in (404, 405), path
        assert client.ask("/page.js")[0] == client.ask("/page.css")[0] == client.ask("/icon.svg")[0] == 200
        assert not stage.said[1:]
    # The id becomes part of a path, so events with an invalid one are not listed.
    log = tmp_path / "events.jsonl"
    event = json.loads(log.read_text(encoding="utf-8").splitlines()[-1])
    log.write_text("\n".join([
        *(json.dumps(event | {"id": name}) for name in ("../secret", "a/b", "C:x", "", "a.b", "x" * 400)),
        json.dumps(event | {"score": float("nan")}), json.dumps(event | {"started_at": "yesterday"}), "[1]", "{",
        "[" * 9999,
        json.dumps(event | {"id": "good-1", "source": "<script>"}), ""]), encoding="utf-8")  # fmt: skip
    with Stage(tmp_path) as stage:
        (listed,) = stage.client().state()["events"]
        assert (listed["id"], listed["source"], listed["sound"]) == ("good-1", "<script>", False)


def test_verdicts_are_stored_and_can_be_withdrawn(tmp_path, monkeypatch):
    file = tmp_path / "verdicts.jsonl"
    with Stage(tmp_path) as stage:
        client = stage.client()
        first, second = stage.plant("front door"), stage.plant("front door", kind=2, sound=False)
        wait_for(lambda: stage.windows_file(second).exists())
        client.open()
        assert client.judge(first, "false_alarm") == client.judge(second, "right") == 200
        kept = read_verdicts(file)
        assert [(v.event, v.source, v.category, v.verdict) for v in kept.values()] == [
            (first, "front door", "siren", "false_alarm"), (second, "front door", "chainsaw", "right")]  # fmt: skip
        assert (kept[first].sound, kept[second].sound) == (f"recordings/{first}.flac", None)
        heard = load_windows(tmp_path / kept[second].embeddings)
        event = json.loads((tmp_path / "events.jsonl").read_text(encoding="utf-8").splitlines()[1])
        # only windows whose middle is within a second of the event
        assert len(heard.embeddings) == pytest.approx((event["end"] - event["start"] + 2) / 0.5, abs=1)
        assert (heard.embeddings == 2).all(axis=1).sum() >= 6 and heard.checkpoint_sha256 == "ab" * 32
        assert heard.scores.max() == np.float32(0.93) and heard.times[0] < -6 and heard.times[-1] > 8
        shown = {e["id"]: (e["right"], e["false"]) for e in client.state()["events"]}
        assert shown == {first: (False, True), second: (True, False)}
        lines = file.read_bytes()
        bad = ("yes", "", None, 1, [], {})
        assert [client.judge(first, verdict) for verdict in bad] == [400] * len(bad)
        assert [client.judge(name, "right") for name in ("absent", "../x")] == [404, 404]
        assert [client.judge(name, "right") for name in (None, 5, [], {})][2:] == [400, 400]
        sent = {"x_token": client.token}
        for body, status in (("", 400), ("{", 400), ("[1]", 400), ("[" * 4000, 400), ("x" * 100_000, 400)):
            assert client.ask("/verdict", "POST", body, **sent)[0] == status
        for wrong in ({"x_token": "0" * 64}, {"x_token": ""}, {"x_token": "é"}, {"origin": None}, {"origin": "null"},
                      {"origin": "http://evil.example"}, {"origin": f"http://127.0.0.1:{stage.port}.evil.example"},
                      {"sec_fetch_site": "cross-site"}, {"cookie": None},
                      {"cookie": f"danger-safe-{stage.port}=" + "a" * 43}):  # fmt: skip
            assert client.judge(first, "right", **wrong) == 403, wrong

        def full(_):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr("os.fsync", full)
            assert client.judge(first, "right") == 507
        assert file.read_bytes() == lines and "could not be written: No space" in stage.said[-1]
        assert client.judge(first, "right") == client.judge(second, "none") == 200
        monkeypatch.setattr(event_windows, "MAX_MEGABYTES", 0.0)
        third = stage.plant("front door")
        wait_for(lambda: stage.windows_file(third).exists() and not stage.windows_file(second).exists())
        assert stage.windows_file(first).exists()  # it has a verdict
    assert {name: v.verdict for name, v in read_verdicts(file).items()} == {first: "right"}
    with Stage(tmp_path) as stage:  # after a restart
        shown = {e["id"]: (e["right"], e["false"]) for e in stage.client().state()["events"]}
        assert shown == {first: (True, False), second: (False, False), third: (False, False)}


def test_other_sites_are_refused(tmp_path):
    with Stage(tmp_path, ("a",)) as stage:
        client, port = stage.client(), stage.port
        for host, status in ((f"127.0.0.1:{port}", 200), (f"localhost:{port}", 200), ("[::1]:1", 200),
        ("127.0.0.1", 200),
                             (f"evil.example:{port}", 421), ("192.168.1.5", 421), ("127.0.0.1.evil.example", 421),
                             ("", 421),
                             ("localhost.", 421), ("127.0.0.1@evil.example", 421), (None, 400)):  # fmt: skip
            for path in ("/", "/state", "/page.js"):
                assert client.ask(path, host=host)[0] == status, host
        for site, mode, status in (("cross-site", "no-cors", 403), ("same-site", "cors", 403),
        ("cross-site", "navigate", 200),
                                   ("none", "navigate", 200), ("same-origin", "cors", 200)):  # fmt: skip
            assert client.ask("/state", sec_fetch_site=site, sec_fetch_mode=mode)[0] == status
        for path in ("/", "/state", "/absent", "/page.css"):
            _, headers, _ = client.ask(path)
            assert (
                "script-src 'self'" in headers["Content-Security-Policy"]
                and "unsafe" not in headers["Content-Security-Policy"]
            )
            assert headers["X-Content-Type-Options"] == "nosniff" and headers["X-Frame-Options"] == "DENY"
            assert (
                headers["Cross-Origin-Resource-Policy"] == "same-origin"
                and headers["Access-Control-Allow-Origin"] is None
            )
        for method in ("PUT", "DELETE", "OPTIONS", "TRACE"):
            assert client.ask("/state", method)[0] in (403, 405)
        _, headers, _ = client.ask("/?language=vi")
        assert headers["Location"] == "/" and 'lang="vi"' in client.open()[1]
        assert "samesite=strict" in headers["Set-Cookie"].lower()
        assert client.ask("/?language=//evil.example")[0] == 200
        text = client.open()[1]
        assert "style=" not in text and "onclick" not in text and "<script>" not in text and "http" not in text


def test_password_protects_the_page(tmp_path, monkeypatch):
    page = {"password": "correct horse", "host": "0.0.0.0", "names": ("pi.home",)}
    with Stage(tmp_path, **page) as stage:
        event = stage.plant("front door")
        client = stage.client()

        def log_in(password, who=None, **headers):
            who = who or client
            who.open()
            return who.ask("/login", "POST", f"token={who.token}&password={quote(password)}", **headers)

        _, text = client.open()
        assert "front door" not in text and 'type="password"' in text and "page.js" not in text
        for path in ("/state", f"/sound/{event}", f"/picture/{event}"):
            assert client.ask(path)[0] == 401
        assert client.judge(event, "right") == 401 and not (tmp_path / "verdicts.jsonl").exists()
        before = dict(client.cookies)
        status, _, body = log_in("wrong")
        assert status == 403 and "That is not the password." in body.decode()
        assert client.ask("/state")[0] == 401
        assert log_in("correct horse", origin="http://evil.example")[0] == 403
        assert client.ask("/login", "POST", "password=correct+horse")[0] == 403  # without the token
        status, headers, _ = log_in("correct horse")
        flags = headers["Set-Cookie"].lower()
        assert status == 303 and "httponly" in flags and "samesite=strict" in flags
        assert client.cookies != before  # a session cookie from an attacker is worthless
        client.open()
        assert client.ask("/state")[0] == 200 and client.judge(event, "right") == 200
        thief = Client(stage.port)
        thief.cookies = before
        assert thief.ask("/state")[0] == 401
        for host, known in (("192.168.1.5:8750", 200), ("[fe80::1]", 200), ("pi.home:80", 200), ("evil.example", 421)):
            assert client.ask("/state", host=host)[0] == known
        # After several wrong guesses, further ones are rejected, even correct ones; existing sessions stay valid.
        guesser = Client(stage.port)
        for _ in range(page_access.MAX_WRONG):
            assert log_in("guess", guesser)[0] == 403
        status, _, body = log_in("correct horse", guesser)
        assert status == 429 and "try again in 5 min" in body.decode()
        assert client.ask("/state")[0] == 200
        assert client.ask("/logout", "POST", "token=wrong")[0] == 403
        status, headers, _ = client.ask("/logout", "POST", f"token={client.token}")
        assert status == 303 and client.ask("/state")[0] == 401
    access = Access(stage.config.page)
    for number in range(page_access.MAX_WRONG_TOTAL):  # from everywhere; an IPv6 network counts as one client
        assert access.log_in("guess", f"10.0.{number}.1")[1] == 0
    assert access.log_in("guess", "10.1.0.1")[1] > 0
    access = Access(stage.config.page)
    waits = [access.log_in("guess", f"2001:db8::{number:x}")[1] for number in range(page_access.MAX_WRONG + 1)]
    assert [wait > 0 for wait in waits] == [False] * page_access.MAX_WRONG + [True]
    monkeypatch.setattr(page_access, "WRONG_S", -1.0)
    assert access.log_in("correct horse", "2001:db8::1")[0]


def test_port_in_use_is_reported(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(UserError, match="another program has it"):
        Stage(tmp_path, port=server.getsockname()[1])
    (tmp_path / "verdicts.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match=r"verdicts\.jsonl, line 1"):
        Stage(tmp_path, port=free_port())


def test_no_request_stops_listening(tmp_path, monkeypatch):
    monkeypatch.setattr("danger_safe.live.page_server.MAX_CONNECTIONS", 4)
    monkeypatch.setattr("danger_safe.live.page_server.REQUEST_S", 0.3)
    stage = Stage(tmp_path)
    with stage:
        client = stage.client()
        event = stage.plant("front door")
        # Connections that send nothing, invalid requests, or never end.
        hung = [socket.create_connection(("127.0.0.1", stage.port)) for _ in range(10)]
        for number, connection in enumerate(hung):
            connection.settimeout(60)
            connection.sendall((b"GET /state HTTP/1.1\r\nHost: ", b"\x16\x03\x01\x02\x00\x01", b"")[number % 3])
        for connection in hung:
            try:
                while connection.recv(1000):
                    pass
            except ConnectionError:
                pass
            connection.close()
        wait_for(lambda: client.ask("/state")[0] == 200)
        client.open()
        with socket.create_connection(("127.0.0.1", stage.port)) as connection:  # a body that is never sent
            connection.settimeout(60)
            connection.sendall(f"POST /verdict HTTP/1.1\r\nHost: 127.0.0.1:{stage.port}\r\nOrigin: http://127.0.0.1:{stage.port}\r\n"
                               f"Cookie: danger-safe-{stage.port}={client.cookies[f'danger-safe-{stage.port}']}\r\n"
                               f"X-Token: {client.token}\r\nContent-Length: 100\r\n\r\n".encode())  # fmt: skip
            assert b" 400 " in connection.recv(1000)
        for _ in range(2):
            with monkeypatch.context() as patched:
                patched.setattr(stage.page._store, "on_window", lambda *_: 1 / 0)
                patched.setattr(stage.page._page._view, "state", lambda *_: 1 / 0)
                stage.hear("front door", [0.1])
                assert client.ask("/state")[0] == 500
        assert [line for line in stage.said if "listening goes on" in line] == stage.said[1:] and len(stage.said) == 3
        assert client.judge(event, "right") == 200
        # It stops although a page is open and a client has stopped reading a sound.
        (tmp_path / "recordings" / f"{event}.flac").write_bytes(bytes(30_000_000))
        last = socket.create_connection(("127.0.0.1", stage.port))
        last.sendall(f"GET /sound/{event} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        last.recv(10)
    assert not stage.page._page._server._thread.is_alive()
    last.close()
    with Stage(tmp_path, port=stage.port):  # the port is free again
        pass
