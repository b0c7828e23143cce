"""Camera addresses in listen.py and predict_danger.py."""

import re
import shutil
import socket
import threading
import time

import numpy as np
import pytest

from danger_safe.audio.ffmpeg import decode_url
from danger_safe.live.feeds import FfmpegFeed

SDP = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=a\r\nt=0 0\r\nm=audio 0 RTP/AVP 0\r\na=control:a\r\n"


class UdpCamera(threading.Thread):
    """An RTSP server that refuses TCP for its sound and sends two seconds of it to each client by UDP."""

    def __init__(self):
        super().__init__(daemon=True)
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"rtsp://127.0.0.1:{self._server.getsockname()[1]}/a"
        self.start()

    def run(self):
        while True:
            connection, _ = self._server.accept()
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        port, requests = 0, connection.makefile("r", newline="")
        for first in requests:
            head = "".join(iter(requests.readline, "\r\n"))
            number, method = re.search(r"CSeq: *(\d+)", head)[1], first.split()[0]
            transport, status, more, body = re.search(r"Transport: *(.*)", head), "200 OK", "", ""
            if method == "DESCRIBE":
                more, body = "Content-Type: application/sdp\r\n", SDP
            elif method == "SETUP" and "TCP" in transport[1]:
                status = "461 Unsupported transport"
            elif method == "SETUP":
                port = int(re.search(r"client_port=(\d+)", transport[1])[1])
                more = f"Transport: {transport[1].strip()};server_port=6970-6971\r\nSession: 1\r\n"
            answer = f"RTSP/1.0 {status}\r\nCSeq: {number}\r\n{more}Content-Length: {len(body)}\r\n\r\n{body}"
            connection.sendall(answer.encode())
            if method == "PLAY":
                self._send(port)
                connection.close()
                return

    @staticmethod
    def _send(port):
        """Send G.711 packets of 20 ms at twice real-time speed."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            for number in range(100):
                sequence, moment = number.to_bytes(2, "big"), (160 * number).to_bytes(4, "big")
                udp.sendto(b"\x80\0" + sequence + moment + bytes(4) + b"\x10\x90" * 80, ("127.0.0.1", port))
                time.sleep(0.01)


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="ffmpeg is not installed")
def test_camera_that_sends_only_by_udp_works():
    url = UdpCamera().url
    for feed in (decode_url(url), FfmpegFeed(url)):
        chunks = iter(feed)
        assert any(len(chunk) and np.abs(chunk).max() > 0.1 for chunk in chunks)  # the first one belongs to the filter
        feed.close()
