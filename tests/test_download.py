"""Downloads against a server on this machine that truncates, lies and breaks off. The real addresses are not tried."""

import hashlib
import http.server
import io
import threading
import zipfile
from pathlib import Path
from typing import ClassVar

import pytest
from conftest import run

from danger_safe import download as downloads
from danger_safe.download import download
from danger_safe.errors import UserError

CONTENT = bytes(range(256)) * 4_000  # 1 MB
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.BaseHTTPRequestHandler):
    """Serves ``content``; breaks off after ``break_after`` bytes of an answer for the first ``breaks`` requests."""

    content, break_after, breaks, ranges = CONTENT, None, 0, True
    requests: ClassVar[list] = []

    def do_GET(self):
        cls = type(self)
        cls.requests.append(self.headers.get("Range"))
        if self.path == "/missing":
            self.send_error(404)
            return
        start = 0
        if cls.ranges and self.headers.get("Range"):
            start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
            self.send_response(206)
        else:
            self.send_response(200)
        body = cls.content[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if cls.breaks > 0:
            cls.breaks -= 1
            body = body[: cls.break_after]
            self.close_connection = True
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    class Fresh(Server):
        requests: ClassVar[list] = []

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Fresh)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    Fresh.url = f"http://127.0.0.1:{httpd.server_port}/file"
    yield Fresh
    httpd.shutdown()


def test_good_file(server, tmp_path):
    target = download(server.url, tmp_path / "new" / "file", size=len(CONTENT), sha256=SHA256)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("ranges", [True, False])
def test_broken_connection_is_resumed(server, tmp_path, ranges):
    server.break_after, server.breaks, server.ranges = 300_000, 2, ranges
    download(server.url, tmp_path / "file", size=len(CONTENT), sha256=SHA256)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.requests[0] is None
    assert server.requests[1] == "bytes=300000-"


def test_interrupted_download_goes_on_in_the_next_run(server, tmp_path):
    server.break_after, server.breaks = 100_000, downloads.ATTEMPTS
    with pytest.raises(UserError, match="goes on where it stopped"):
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


def test_missing_file_and_no_server_say_what_to_do(server, tmp_path):
    with pytest.raises(UserError, match="404"):
        download(server.url.replace("/file", "/missing"), tmp_path / "file")
    with pytest.raises(UserError, match="Check the connection"):
        download("http://127.0.0.1:9/file", tmp_path / "file")
    assert not list(tmp_path.glob("file"))


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


def filtered(server, tmp_path, status):
    (tmp_path / "c.toml").write_text('Danger = ["dog"]\nSafe = ["rain"]\n')
    return run(
        "filterAudioToDangerousAndSafe.py", "--esc50", tmp_path / "data" / "ESC", "--output", tmp_path / "out",
        "--categories", tmp_path / "c.toml", env={"DANGER_SAFE_ESC50_URL": server.url}, status=status,
    )  # fmt: skip


def test_esc50_is_downloaded_checked_and_used(server, tmp_path):
    server.content = esc50_zip(2_000, 441_044)
    assert "2000 clips placed" in filtered(server, tmp_path, status=0).stdout
    assert len(list((tmp_path / "data" / "ESC" / "audio").iterdir())) == 2_000
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["ESC"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (esc50_zip(1_999, 10), "1999 clips are listed"),
        (esc50_zip(2_000, 10), "another size"),
        (esc50_zip(5, 10, ["../evil.txt"]), "would leave"),
        (esc50_zip(5, 10, ["/evil.txt"]), "would leave"),
        (esc50_zip(2_000, 10)[:-2_000], "not usable"),
    ],
)
def test_esc50_that_is_not_whole_is_not_kept(server, tmp_path, content, words):
    server.content = content
    assert words in filtered(server, tmp_path, status=1).stderr
    assert not list((tmp_path / "data").iterdir())
    assert not list(Path(tmp_path).rglob("evil.txt"))


def test_official_checkpoint_with_another_hash_is_refused(server, tmp_path, monkeypatch):
    from models import checkpoint_files, checkpoints

    monkeypatch.setattr(checkpoint_files, "OFFICIAL", tmp_path / "Cnn14.pth")
    monkeypatch.setattr(checkpoint_files, "OFFICIAL_URL", server.url)
    with pytest.raises(UserError, match="bytes where"):
        checkpoints.checkpoint_path("cnn14")
    (tmp_path / "Cnn14.pth").write_bytes(CONTENT)
    with pytest.raises(UserError, match="not the official"):
        checkpoints.load_model("cnn14")
