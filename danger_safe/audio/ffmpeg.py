"""Decoding with ffmpeg, for everything that libsndfile cannot read: videos, recordings of phones, streams of cameras.

ffmpeg exits with status 0 even if it has skipped what it could not decode. So its messages are read, the decoded
duration is compared with the declared one, and gaps are filled with silence, so that times agree with the picture.
Files may come from anybody: ffmpeg may not follow playlists, or open any other file.
"""

import functools
import queue
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from danger_safe.audio.containers import is_truncated_asf
from danger_safe.audio.pcm import SAMPLE_RATE, AudioError, check_samples, stack_tracks, truncation_message

TIMEOUT_S = 60  # seconds without a sample after which a file or a stream is given up
MAX_MISSING_S = 0.3  # seconds by which a file may be shorter than it declares
SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "http", "https", "srt", "udp", "rtp", "tcp", "mms", "mmsh")
# Demuxers whose files hold their own sound. Others (hls, dash, concat …) refer to other files.
FORMATS = (
    "aac,ac3,eac3,aiff,amr,ape,asf,au,avi,caf,dsf,dts,dtshd,dv,flac,flv,loas,matroska,webm,mov,mp4,m4a,"
    "3gp,3g2,mj2,mp3,mpc,mpc8,mpeg,mpegts,mxf,ogg,rm,sox,tak,tta,voc,w64,wav,wtv,wv,xwma"
)
# Demuxers whose files declare their duration; for others, ffmpeg prints an estimate.
_WITH_DURATION = {"asf", "ape", "avi", "caf", "flv", "matroska", "mov", "tak", "tta", "wav", "wtv", "wv"}
_AUDIO_STREAM = re.compile(rb"^  Stream #0:\d+.*?: Audio: (\w+)", re.M)
_PICTURE_STREAM = re.compile(rb"^  Stream #0:\d+.*?: (?:Video|Subtitle): (\w+)", re.M)
_VIDEO_STREAM = re.compile(rb"^  Stream #0:\d+.*?: Video: (?!.*\(attached pic\))", re.M)  # not a cover picture
_DROPPED = re.compile(rb"discarding (\d+) audio samples")
_DURATION = re.compile(rb"^  Duration: (\d+):(\d+):([\d.]+)", re.M)
_INPUT = re.compile(rb"^Input #0, (\w+)", re.M)
_TIME = re.compile(rb" time=(\d+):(\d+):([\d.]+)")
_LOG_LINE = re.compile(rb"^(?:\[(?P<by>[^\]@]+) @ [^\]]*\] )*\[(?P<level>error|fatal|panic|warning)\] (?P<text>.*)")
_DATA_LOSS = re.compile(rb"corrupt|mismatch|discontinu", re.I)  # in warnings that mean that something is missing
_READ_BYTES = 1 << 18
_POLL_S = 0.2  # seconds between two looks at whether a waiting thread should stop


def is_stream_url(text: str) -> bool:
    """Return whether a text is a URL that ffmpeg can open: ``rtsp://…``, ``http://…``."""
    return text.partition("://")[0].lower() in SCHEMES and "://" in text


def is_available() -> bool:
    """Return whether ffmpeg is installed."""
    return shutil.which("ffmpeg") is not None


class StreamInfo:
    """What ffmpeg reports about a file before it decodes it.

    Attributes:
        audio_codecs: the codec of each audio track.
        picture_codecs: the codecs of the video and subtitle tracks.
        has_video: whether there is a video track, not counting a cover picture.
        duration_s: duration in seconds, which ffmpeg may have estimated; 0 if unknown.
        declared_s: duration in seconds that the file itself declares; 0 if it does not.
    """

    def __init__(self, path: Path):
        """Probe a file. Raises AudioError if ffmpeg cannot decode it."""
        try:
            status = path.stat()
        except OSError as error:
            raise AudioError(f"cannot be read: {error.strerror}") from error
        log = _probe(path, status.st_ino, status.st_mtime_ns, status.st_size)
        self.audio_codecs = [name.decode() for name in _AUDIO_STREAM.findall(log)]
        self.picture_codecs = {name.decode() for name in _PICTURE_STREAM.findall(log)}
        self.has_video = _VIDEO_STREAM.search(log) is not None
        demuxer, duration = _INPUT.search(log), _DURATION.search(log)
        self.duration_s = _seconds(duration) if duration else 0.0
        is_declared = demuxer and demuxer[1].decode() in _WITH_DURATION and b"Estimating duration" not in log
        self.declared_s = self.duration_s if is_declared else 0.0
        if b"misdetection possible" in log:  # a page of HTML would be decoded as noise
            raise AudioError("cannot be decoded, by ffmpeg neither: what kind of file it is can only be guessed")
        if not self.audio_codecs:
            lines = log.decode(errors="replace").strip().splitlines() or ["no reason given"]
            reason = "holds no sound" if demuxer else lines[-1].rsplit(": ", 1)[-1]
            raise AudioError(f"cannot be decoded, by ffmpeg neither: {reason}")


@functools.lru_cache(maxsize=1024)  # a file's length is read before it is decoded, and ffmpeg starts slowly
def _probe(path: Path, inode: int, modified_ns: int, size: int) -> bytes:
    """Return what ffmpeg prints about a file, which may not have changed. Raises AudioError after TIMEOUT_S."""
    command = [*input_command(f"file:{path}"), "-v", "info", "-i", f"file:{path}"]
    try:
        return subprocess.run(command, capture_output=True, timeout=TIMEOUT_S).stderr.replace(b"\r", b"")
    except subprocess.TimeoutExpired as error:
        raise AudioError(f"cannot be decoded: ffmpeg found nothing in {TIMEOUT_S} seconds") from error


def decode_file(path: Path, libsndfile_error: AudioError) -> Iterator[np.ndarray]:
    """Decode all audio tracks of a file, their channels side by side.

    Args:
        path: the file.
        libsndfile_error: why libsndfile cannot decode it; raised, with advice, if ffmpeg is not installed.

    Yields:
        Chunks of float32 at 32 kHz, (samples, channels).

    Raises:
        AudioError: something is missing; after everything that could be decoded.
    """
    if not is_available():
        raise AudioError(f"{libsndfile_error}; with ffmpeg installed, videos and more formats can be read")
    info = StreamInfo(path)
    tracks = [_Track(f"file:{path}", number, info) for number in range(len(info.audio_codecs))]
    num_samples = 0
    for chunk in stack_tracks([track.chunks() for track in tracks]):
        num_samples += len(chunk)
        yield chunk
    position_s = max([num_samples / SAMPLE_RATE, *(track.position_s for track in tracks)])
    complaint = next((track.complaint for track in tracks if track.complaint), "")
    if not complaint and is_truncated_asf(path):
        complaint = "the file is shorter than it states"
    if complaint and not num_samples:
        raise AudioError(f"cannot be decoded, by ffmpeg neither: {complaint}")
    is_short = info.declared_s > 0 and position_s < info.declared_s - MAX_MISSING_S
    if complaint or is_short:
        reason = complaint and f"ffmpeg says: {complaint}"
        raise AudioError(truncation_message(num_samples, info.declared_s if is_short else 0.0, reason))
    if not num_samples:
        raise AudioError("has no samples")


def decode_url(url: str, stopped: threading.Event | None = None) -> Iterator[np.ndarray]:
    """Decode the stream of a camera or a server until it ends, or until ``stopped`` is set.

    Yields float32 at 32 kHz, (samples, channels). Raises AudioError if the stream cannot be opened or breaks off.
    """
    if not is_available():
        raise AudioError("is an address: with ffmpeg installed, it can be listened to")
    track, num_samples = _Track(url, 0, None), 0
    if stopped is not None:
        track.stopped = stopped
    for chunk in track.chunks():
        num_samples += len(chunk)
        yield chunk
    if track.complaint or not num_samples:
        reason = f"ffmpeg says: {track.complaint}" if track.complaint else "it sends no sound"
        raise AudioError(
            truncation_message(num_samples, reason=reason) if num_samples else f"cannot be listened to: {reason}"
        )


class _Track:
    """Decodes one audio track in an ffmpeg process of its own.

    Attributes:
        complaint: the first message of ffmpeg that means that something is missing; "" if there is none.
        position_s: the furthest position in the input that ffmpeg has reported, in seconds.
        stopped: ends the decoding when it is set.
    """

    def __init__(self, source: str, number: int, info: StreamInfo | None):
        """
        Args:
            source: a URL, or a path as ``file:PATH``.
            number: the index of the track.
            info: what ffmpeg reported about a file; None for a stream.
        """
        self._command = [
            *input_command(source), "-v", "level+verbose", "-stats", "-i", source,
            "-map", f"0:a:{number}", "-af", f"aresample={SAMPLE_RATE}:async=1:min_hard_comp=0.05:first_pts=0",
            "-c:a", "pcm_f32be", "-f", "au", "-",
        ]  # fmt: skip
        if info and info.has_video and number == 0:  # also demux the video, so that position_s covers its duration
            self._command += ["-map", "0:V:0?", "-c:v", "copy", "-f", "null", "-"]
        self._info = info
        self.complaint = ""
        self.position_s = 0.0
        self.stopped = threading.Event()
        self._num_dropped = 0  # samples that ffmpeg dropped because they overlap earlier ones
        self._output: queue.Queue[bytes] = queue.Queue(maxsize=4)

    def chunks(self) -> Iterator[np.ndarray]:
        """Yield (samples, channels) as they are decoded; ``complaint`` is final at the end."""
        process = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)
        assert process.stdout is not None and process.stderr is not None  # both are pipes
        work = ((self._read_output, process.stdout), (self._read_log, process.stderr))
        threads = [threading.Thread(target=read, args=(stream,), daemon=True) for read, stream in work]
        for thread in threads:
            thread.start()
        rest, channels = b"", 0
        try:
            while data := self._next_output(process):
                data = rest + data
                if not channels:  # still before the end of the AU header
                    if len(data) < 24 or len(data) < int.from_bytes(data[4:8], "big"):
                        rest = data
                        continue
                    channels = int.from_bytes(data[20:24], "big")
                    if self._info is None:
                        self.complaint = ""  # a camera refused one transport, but another one has worked
                    data = data[int.from_bytes(data[4:8], "big") :]
                size = len(data) // (4 * channels) * 4 * channels
                rest = data[size:]
                if size:
                    yield check_samples(np.frombuffer(data[:size], ">f4").astype(np.float32).reshape(-1, channels))
            threads[1].join(TIMEOUT_S)
            if process.wait() and not self.complaint:
                self.complaint = f"status {process.returncode}"
            if self._num_dropped > MAX_MISSING_S * SAMPLE_RATE and not self.complaint:
                self.complaint = f"{self._num_dropped / SAMPLE_RATE:.1f} s of sound are at the times of other sound"
        finally:
            self.stopped.set()
            process.kill()  # in case the caller does not want the rest
            process.wait()
            for thread in threads:
                thread.join()
            process.stdout.close()
            process.stderr.close()

    def _next_output(self, process: subprocess.Popen) -> bytes:
        """Wait for the next output of ffmpeg. Returns b"" at the end, after TIMEOUT_S, or when ``stopped`` is set."""
        deadline = time.monotonic() + TIMEOUT_S
        while not self.stopped.is_set():
            try:
                return self._output.get(timeout=_POLL_S)
            except queue.Empty:
                if time.monotonic() > deadline:
                    self.complaint = f"nothing, for {TIMEOUT_S} seconds: given up"
                    break
        process.kill()  # otherwise waiting for its end could block forever
        return b""

    def _read_output(self, stdout: IO[bytes]) -> None:
        """Put what ffmpeg decodes into the queue, and b"" at the end. Runs in a thread."""
        data = b"more"
        while data and not self.stopped.is_set():
            data = stdout.read(_READ_BYTES)
            while not self.stopped.is_set():
                try:
                    self._output.put(data, timeout=_POLL_S)
                    break
                except queue.Full:
                    continue

    def _read_log(self, stderr: IO[bytes]) -> None:
        """Follow ffmpeg's log: positions, dropped samples, complaints. Runs in a thread."""
        rest = b""
        while data := stderr.read(1 << 16):
            *lines, rest = re.split(rb"[\r\n]", rest + data)
            rest = rest[-4_096:]
            for line in lines:
                if (position := _TIME.search(line)) is not None:
                    self.position_s = max(self.position_s, _seconds(position))
                elif (dropped := _DROPPED.search(line)) is not None:
                    self._num_dropped += int(dropped[1])
                elif not self.complaint:
                    self.complaint = self._parse_complaint(line)

    def _parse_complaint(self, line: bytes) -> str:
        """Return the message of a log line if it means that sound is missing, otherwise ""."""
        match = _LOG_LINE.match(line)
        if match is None or (match["level"] == b"warning" and not _DATA_LOSS.search(match["text"])):
            return ""
        by = (match["by"] or b"").decode(errors="replace")
        text = match["text"].decode(errors="replace").strip()
        picture_codecs = self._info.picture_codecs if self._info else ()
        if by.startswith(("null", "vist", "vost")) or any(codec in by for codec in picture_codecs):
            return ""  # it is about the picture
        is_amr = self._info is not None and any(codec.startswith("amr") for codec in self._info.audio_codecs)
        if is_amr and ("amr" in by or text.startswith("Error while decoding") or "decoding error" in text.lower()):
            return ""  # phones send empty frames during silence
        return re.sub(r"^file:.*?: (?=[^:]*$)", "", text)


def input_command(source: str) -> list[str]:
    """Return the ffmpeg command up to its input options, which limit the protocols and formats that it may open."""
    protocols, formats = "file", FORMATS
    if is_stream_url(source):
        protocols = ",".join((*SCHEMES, "tls", "httpproxy", "crypto"))
        formats = f"{FORMATS},rtsp,rtp,hls,live_flv,mpjpeg,sdp"
    program = shutil.which("ffmpeg") or "ffmpeg"
    command = [program, "-nostdin", "-hide_banner", "-protocol_whitelist", protocols, "-format_whitelist", formats]
    # UDP loses sound on a busy network, but some cameras support nothing else.
    return [*command, "-rtsp_flags", "prefer_tcp"] if source.lower().startswith("rtsp") else command


def _seconds(match: re.Match[bytes]) -> float:
    hours, minutes, seconds = map(float, match.groups())
    return hours * 3600 + minutes * 60 + seconds
