"""Downloads from a local server that truncates, disconnects and sends wrong data. Real addresses are not used."""

import contextlib
import errno
import hashlib
import http.server
import io
import threading
import time
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
from helpers import SHARED, needs_shared

import filterAudioToDangerousAndSafe
from danger_safe.core import download as downloads
from danger_safe.core.download import download
from danger_safe.core.errors import UserError
from danger_safe.core.ownership import marked_folder
from danger_safe.data import esc50
from danger_safe.data.esc50 import download_esc50

CONTENT = bytes(range(256)) * 4_000  # 1 MB
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.BaseHTTPRequestHandler):
    """Serves ``content``; the first ``breaks`` responses are cut off after ``break_after`` bytes.

    ``stall``: seconds of silence before it disconnects. ``length`` is added to the announced length (None: announce
    none), ``offset`` to the start of a resumed response. ``/302`` responds with that status.
    """

    content, break_after, breaks, ranges, stall, length, offset = CONTENT, None, 0, True, 0, 0, 0
    drips = 0  # bytes that it sends at ten per second before it stalls
    requests: ClassVar[list] = []

    def do_GET(self):
        cls = type(self)
        cls.requests.append(self.headers.get("Range"))
        number = self.path.strip("/")
        if number.isdigit():
            self.send_response(int(number))
            self.send_header("Location", "/302" if number == "302" else "/file")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = 0
        if cls.ranges and self.headers.get("Range"):
            start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
            if start >= len(cls.content):
                self.send_error(416)
                return
            start += cls.offset
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(cls.content) - 1}/{len(cls.content)}")
        else:
            self.send_response(200)
        body = cls.content[start:]
        if cls.length is not None:
            self.send_header("Content-Length", str(len(body) + cls.length) if cls.length != "x" else "many")
        self.end_headers()
        with contextlib.suppress(OSError):
            if cls.breaks > 0:
                cls.breaks -= 1
                self.close_connection = True
                self.wfile.write(body[: cls.break_after])
                for _ in range(cls.drips):
                    time.sleep(0.1)
                    self.wfile.write(b"x")
                time.sleep(cls.stall)
            else:
                self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    class Fresh(Server):
        requests: ClassVar[list] = []

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Fresh)
    threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
    Fresh.url = f"http://127.0.0.1:{httpd.server_port}/file"
    yield Fresh
    httpd.shutdown()


def test_download_of_a_valid_file(server, tmp_path):
    target = download(server.url, tmp_path / "new" / "file", size=len(CONTENT), sha256=SHA256)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("ranges", [True, False])
def test_broken_connection_is_resumed(server, tmp_path, ranges):
    server.break_after, server.breaks, server.ranges = 300_000, 2, ranges
    download(server.url, tmp_path / "file", size=len(CONTENT), sha256=SHA256)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.requests[0] is None
    assert server.requests[1] == "bytes=300000-"


def test_interrupted_download_is_resumed_by_the_next_run(server, tmp_path):
    server.break_after, server.breaks = 100_000, downloads.MAX_ATTEMPTS
    with pytest.raises(UserError, match="the download resumes"):
        download(server.url, tmp_path / "file", size=len(CONTENT), sha256=SHA256)
    assert not (tmp_path / "file").exists()
    server.breaks = 0
    server.requests.clear()
    download(server.url, tmp_path / "file", size=len(CONTENT), sha256=SHA256)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.requests == ["bytes=300000-"]


@pytest.mark.parametrize("content", [CONTENT[:-1] + b"x", CONTENT[:-9], b"", b"<html>sign in</html>"])
def test_wrong_content_is_never_kept(server, tmp_path, content):
    server.content = content
    with pytest.raises(UserError):
        download(server.url, tmp_path / "file", size=len(CONTENT), sha256=SHA256)
    assert not (tmp_path / "file").exists()


def test_missing_file_and_unreachable_server_are_explained(server, tmp_path):
    with pytest.raises(UserError, match="404"):
        download(server.url.replace("/file", "/404"), tmp_path / "file")
    with pytest.raises(UserError, match="Check the connection"):
        download("http://127.0.0.1:9/file", tmp_path / "file")
    assert not list(tmp_path.glob("file"))


def whole(server, tmp_path, **known):
    download(server.url, tmp_path / "file", **known)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    return (tmp_path / "file").read_bytes() == CONTENT


def test_stalled_download_times_out(server, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "TIMEOUT_S", 0.3)
    server.break_after, server.breaks, server.stall = 300_000, downloads.MAX_ATTEMPTS, 2
    with pytest.raises(UserError, match=r"timed out.*the download resumes"):
        download(server.url, tmp_path / "file", size=len(CONTENT), sha256=SHA256)
    assert not (tmp_path / "file").exists()
    server.breaks, server.stall = 0, 0
    monkeypatch.undo()
    assert whole(server, tmp_path, size=len(CONTENT), sha256=SHA256)


def test_very_slow_download_times_out(server, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "TIMEOUT_S", 1.0)
    server.break_after, server.breaks, server.drips = 0, downloads.MAX_ATTEMPTS, 50
    with pytest.raises(UserError, match="less than 1,000 bytes a second"):
        download(server.url, tmp_path / "file", size=len(CONTENT), sha256=SHA256)


@pytest.mark.parametrize("known", [{}, {"size": len(CONTENT), "sha256": SHA256}])
@pytest.mark.parametrize("length", [1_000, -1_000, None, "x", -2 * len(CONTENT)])
def test_wrong_lengths_never_leave_a_partial_file(server, tmp_path, length, known):
    server.length = length
    try:
        assert whole(server, tmp_path, **known) or (not known and length == -1_000)  # only the server knows the length
    except UserError:
        assert not (tmp_path / "file").exists()
        server.length = 0
        assert whole(server, tmp_path, **known)


def test_endless_response_does_not_fill_the_disk(server, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "MAX_BYTES", 500_000)
    with pytest.raises(UserError, match="more than 500,000 bytes"):
        download(server.url, tmp_path / "file")
    with pytest.raises(UserError, match="where 600,000 were expected"):
        download(server.url, tmp_path / "file", size=600_000)
    assert not list(tmp_path.iterdir())


def test_resumed_download_of_a_changed_file_starts_over(server, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT[:1_000])
    server.offset = 7
    assert whole(server, tmp_path)
    assert server.requests == ["bytes=1000-", None]
    (tmp_path / "file").unlink()
    server.offset = 0
    (tmp_path / "file.part").write_bytes(b"x" * 1_000)  # the file has changed in the meantime
    with pytest.raises(UserError, match="another SHA-256"):
        download(server.url, tmp_path / "file", size=len(CONTENT), sha256=SHA256)
    assert whole(server, tmp_path, size=len(CONTENT), sha256=SHA256)


def test_partial_file_that_is_too_long_is_downloaded_again(server, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT + b"more")
    assert whole(server, tmp_path)  # the server answers 416
    (tmp_path / "file").rename(tmp_path / "file.part")
    assert whole(server, tmp_path, size=len(CONTENT), sha256=SHA256)  # the file was already complete


@pytest.mark.parametrize("number", [302, 403, 416, 429, 500, 503])
def test_http_errors_are_reported_and_leave_no_file(server, tmp_path, number):
    words = "Check the connection" if number >= 500 else "by hand"
    with pytest.raises(UserError, match=f"{number}(.|\n)*{words}"):
        download(server.url.replace("/file", f"/{number}"), tmp_path / "file")
    assert not list(tmp_path.iterdir())
    if number != 302:  # which redirects to itself
        assert len(server.requests) == (downloads.MAX_ATTEMPTS if number >= 500 else 1)  # HTTP errors are not retried


def test_redirect_is_followed(server, tmp_path):
    server.url = server.url.replace("/file", "/301")
    assert whole(server, tmp_path, size=len(CONTENT), sha256=SHA256)


def test_full_disk_is_not_reported_as_a_bad_connection(server, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(downloads.tqdm, "update", full)
        with pytest.raises(UserError, match=r"file\.part: the disk is full.*the download resumes"):
            download(server.url, tmp_path / "file", size=len(CONTENT), sha256=SHA256)
    assert len(server.requests) == 1
    assert whole(server, tmp_path, size=len(CONTENT), sha256=SHA256)
    assert server.requests[1].startswith("bytes=")


def esc50_zip(clips, clip_bytes, names=()):
    data = io.BytesIO()
    rows = ["filename,fold,target,category,esc10,src_file,take"]
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as zipped:
        for n in range(clips):
            name = f"{n % 5 + 1}-{n}-A-0.wav"
            rows.append(f"{name},{n % 5 + 1},0,{'dog' if n % 2 else 'rain'},True,{n},A")
            zipped.writestr(f"ESC-50-master/audio/{name}", bytes(clip_bytes))
        zipped.writestr("ESC-50-master/meta/esc50.csv", "\n".join(rows) + "\n")
        zipped.writestr("ESC-50-master/LICENSE", "text")
        for name in names:
            zipped.writestr(name, "evil")
    return data.getvalue()


def test_expected_size_is_that_of_esc50():
    assert (esc50.CLIPS, esc50.CLIP_BYTES) == (5 * 50 * 8, 44 + 2 * 5 * 44_100)  # WAV header, 16 bits, five seconds


@pytest.fixture
def filtered(server, tmp_path, monkeypatch):
    """A function that runs step 1 with an ESC-50 of 40 clips of 10 bytes, which ``server`` has."""
    (tmp_path / "c.toml").write_text('Danger = ["dog"]\nSafe = ["rain"]\n')
    monkeypatch.chdir(tmp_path)
    for name, value in (("URL", server.url), ("CLIPS", 40), ("CLIP_BYTES", 10)):
        monkeypatch.setattr(esc50, name, value)
    return lambda: filterAudioToDangerousAndSafe.main(["--output", "out", "--categories", "c.toml"])


def test_esc50_is_downloaded_checked_and_used(server, filtered, tmp_path, capsys):
    server.content = esc50_zip(40, 10)
    assert filtered() == 0
    assert "40 clips placed" in capsys.readouterr().out
    assert len(list((tmp_path / "dataset" / "ESC-50-master" / "audio").iterdir())) == 40
    assert [p.name for p in (tmp_path / "dataset").iterdir()] == ["ESC-50-master"]


def test_only_leftovers_of_a_killed_run_are_removed(tmp_path):
    esc50, left = tmp_path / "ESC-50-master", tmp_path / "ESC-50-master.download"
    esc50.mkdir()
    marked_folder(left)
    (left / "ESC-50.zip").touch()
    download_esc50(esc50)
    assert [path.name for path in tmp_path.iterdir()] == ["ESC-50-master"]
    left.mkdir()
    (left / "mine.txt").touch()  # a user's folder of the same name
    download_esc50(esc50)
    assert (left / "mine.txt").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (esc50_zip(39, 10), "39 clips are listed"),
        (esc50_zip(40, 9), "another size"),
        (esc50_zip(5, 10, ["../evil.txt"]), "would leave"),
        (esc50_zip(5, 10, ["/evil.txt"]), "would leave"),
        (esc50_zip(40, 10)[:-2_000], "not a zip file"),
        (
            esc50_zip(40, 10).replace(zlib.compress(bytes(10))[2:-4], b"\xff\xff\xff\xff\xff"),
            "decompressing",
        ),  # damaged in transit
    ],
)
def test_incomplete_esc50_is_not_kept(server, filtered, tmp_path, content, words):
    server.content = content
    with pytest.raises(UserError, match=rf"not usable and was removed: .*{words}"):
        filtered()
    assert [p.name for p in (tmp_path / "dataset").rglob("*")] == ["ESC-50-master.download", ".danger-safe"]
    assert not list(Path(tmp_path).rglob("evil.txt"))


@pytest.mark.parametrize(("name", "words"), [("cnn14", "not the official"), ("mn04", "not EfficientAT's mn04")])
def test_official_checkpoint_with_a_wrong_hash_is_refused(server, tmp_path, monkeypatch, name, words):
    from models import checkpoint_files, checkpoints

    here = replace(checkpoint_files.OFFICIAL[name], path=tmp_path / "network.pth", url=server.url)
    monkeypatch.setitem(checkpoint_files.OFFICIAL, name, here)
    with pytest.raises(UserError, match="bytes where"):
        checkpoint_files.checkpoint_path(name)
    here.path.write_bytes(CONTENT)
    with pytest.raises(UserError, match=words):
        checkpoints.load_model(name)


def test_missing_connection_is_reported_with_the_way_without_one(tmp_path, monkeypatch, capsys):
    from models import checkpoint_files

    nobody = "http://127.0.0.1:9/file"  # the port "discard": no server
    here = replace(checkpoint_files.OFFICIAL["cnn14"], path=tmp_path / "network.pth", url=nobody)
    monkeypatch.setitem(checkpoint_files.OFFICIAL, "cnn14", here)
    with pytest.raises(UserError, match=r"the download resumes\. Without Internet: --checkpoint compact$"):
        checkpoint_files.checkpoint_path("cnn14")
    assert f"Downloading the official Cnn14 (327 MB, CC BY 4.0) from {nobody}\n" in capsys.readouterr().err
    monkeypatch.setattr("danger_safe.data.esc50.URL", nobody)
    with pytest.raises(UserError, match=r"Without Internet: --esc50 FOLDER or --sample$"):
        download_esc50(tmp_path / "ESC-50-master")


@needs_shared
def test_mn04_is_downloaded_and_resumed(server, tmp_path, monkeypatch):
    from models import checkpoint_files, checkpoints

    server.content = (SHARED / "mn04" / "mn04_as_mAP_432.pt").read_bytes()
    here = replace(checkpoint_files.OFFICIAL["mn04"], path=tmp_path / "mn04.pt", url=server.url)
    monkeypatch.setitem(checkpoint_files.OFFICIAL, "mn04", here)
    (tmp_path / "mn04.pt.part").write_bytes(server.content[:1_000_000])
    model, info = checkpoints.load_model("mn04")
    assert (info.name, info.licence, model.dimensions) == ("mn04", "MIT (Florian Schmid)", 384)
    assert here.path.read_bytes() == server.content
