"""What only ffmpeg makes a sound of: videos, phones' recordings, cameras' addresses.

ffmpeg ends with 0 when it has left out what it could not decode. So its complaints are read, the sound that came is
held against the length that the file states, and gaps are filled: times stay what they are in the picture. A file may
be from anybody: no playlist is followed, and no other file opened.
"""

import queue
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import IO

import numpy as np

from danger_safe.audio.containers import ASF_PROPERTIES
from danger_safe.audio.pcm import SAMPLE_RATE, AudioError, check_samples, truncation_message

GIVE_UP_SECONDS = 60  # without a sample, from a file or an address
SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "http", "https", "srt", "udp", "rtp", "tcp", "mms", "mmsh")
MAX_MISSING = 0.3  # seconds by which a file may be shorter than it states
# Kinds of file that hold their sound themselves and begin as such. hls, dash, concat and the like name other files.
FORMATS = (
    "aac,ac3,eac3,aiff,amr,ape,asf,au,avi,caf,dsf,dts,dtshd,dv,flac,flv,loas,matroska,webm,mov,mp4,m4a,"
    "3gp,3g2,mj2,mp3,mpc,mpc8,mpeg,mpegts,mxf,ogg,rm,sox,tak,tta,voc,w64,wav,wtv,wv,xwma"
)
_STATED = {"asf", "ape", "avi", "caf", "flv", "matroska", "mov", "tak", "tta", "wav", "wtv", "wv"}  # how long they are
_SOUND = re.compile(rb"^  Stream #0:\d+.*?: Audio: (\w+)", re.M)
_PICTURE = re.compile(rb"^  Stream #0:\d+.*?: (?:Video|Subtitle): (\w+)", re.M)
_FILM = re.compile(rb"^  Stream #0:\d+.*?: Video: (?!.*\(attached pic\))", re.M)
_DROPPED = re.compile(rb"discarding (\d+) audio samples")
_DURATION = re.compile(rb"^  Duration: (\d+):(\d+):([\d.]+)", re.M)
_INPUT = re.compile(rb"^Input #0, (\w+)", re.M)
_TIME = re.compile(rb" time=(\d+):(\d+):([\d.]+)")
_COMPLAINT = re.compile(rb"^(?:\[(?P<by>[^\]@]+) @ [^\]]*\] )*\[(?P<level>error|fatal|panic|warning)\] (?P<words>.*)")
_FORGOTTEN = re.compile(rb"corrupt|mismatch|discontinu", re.I)  # of warnings: those that say that something is missing
_BLOCK = 1 << 18  # bytes
_POLL_SECONDS = 0.2  # after which who waits looks whether it is to stop


def is_stream_url(text: str) -> bool:
    """Whether ffmpeg can open it from elsewhere: ``rtsp://…``, ``http://…``."""
    return text.partition("://")[0].lower() in SCHEMES and "://" in text


def is_available() -> bool:
    """Whether ffmpeg is installed."""
    return shutil.which("ffmpeg") is not None


class StreamInfo:
    """What ffmpeg says of an input before it decodes it."""

    def __init__(self, path: Path):
        """Raises AudioError where it can make no sound of the file."""
        command = [*input_command(f"file:{path}"), "-v", "info"]
        try:
            done = subprocess.run([*command, "-i", f"file:{path}"], capture_output=True, timeout=GIVE_UP_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise AudioError(f"cannot be decoded: ffmpeg found nothing in {GIVE_UP_SECONDS} seconds") from error
        said = done.stderr.replace(b"\r", b"")
        self.codecs = [name.decode() for name in _SOUND.findall(said)]
        self.pictures = {name.decode() for name in _PICTURE.findall(said)}
        self.is_film = _FILM.search(said) is not None  # and no cover picture
        kind, duration = _INPUT.search(said), _DURATION.search(said)
        self.seconds = _seconds(duration) if duration else 0.0
        stated = kind is not None and kind[1].decode() in _STATED and b"Estimating duration" not in said
        self.promised = self.seconds if stated else 0.0
        if b"misdetection possible" in said:  # a page of HTML becomes noise
            raise AudioError("cannot be decoded, by ffmpeg neither: what kind of file it is can only be guessed")
        if not self.codecs:
            words = said.decode(errors="replace").strip().splitlines() or ["no reason given"]
            known = "holds no sound" if kind else words[-1].rsplit(": ", 1)[-1]
            raise AudioError(f"cannot be decoded, by ffmpeg neither: {known}")


def decode_file(path: Path, refused: AudioError) -> Iterator[np.ndarray]:
    """(samples, channels) pieces at 32 kHz of a file that libsndfile ``refused``: all its tracks, side by side.

    Raises AudioError, after what could be heard, where something is missing.
    """
    if not is_available():
        raise AudioError(f"{refused}; with ffmpeg installed, videos and more formats can be read")
    facts = StreamInfo(path)
    tracks = [_Track(f"file:{path}", number, facts) for number in range(len(facts.codecs))]
    heard = 0
    for piece in _side_by_side([track.pieces() for track in tracks]):
        heard += len(piece)
        yield piece
    reached = max([heard / SAMPLE_RATE, *(track.reached for track in tracks)])
    complaint = next((track.complaint for track in tracks if track.complaint), "")
    if not complaint and _is_cut_asf(path):
        complaint = "the file is shorter than it states"
    if complaint and not heard:
        raise AudioError(f"cannot be decoded, by ffmpeg neither: {complaint}")
    if complaint or (facts.promised and reached < facts.promised - MAX_MISSING):
        short = reached < facts.promised - MAX_MISSING
        raise AudioError(
            truncation_message(heard, facts.promised if short else 0.0, complaint and f"ffmpeg says: {complaint}")
        )
    if not heard:
        raise AudioError("has no samples")


def _is_cut_asf(path: Path) -> bool:
    """Whether a WMA or WMV is shorter than its header says, which ffmpeg does not mention."""
    with open(path, "rb") as file:
        head = file.read(1 << 16)
        size = file.seek(0, 2)
    at = head.find(ASF_PROPERTIES)
    is_stream = at >= 0 and head[at + 88 : at + 89] and head[at + 88] & 1  # written while nobody knew
    return at >= 0 and not is_stream and int.from_bytes(head[at + 40 : at + 48], "little") > size


def decode_url(address: str, stopped: threading.Event | None = None) -> Iterator[np.ndarray]:
    """(samples, channels) pieces at 32 kHz of what a camera or a server sends, to its end, or until it is
    ``stopped``."""
    if not is_available():
        raise AudioError("is an address: with ffmpeg installed, it can be listened to")
    track, heard = _Track(address, 0, None), 0
    if stopped is not None:
        track.stopped = stopped
    for piece in track.pieces():
        heard += len(piece)
        yield piece
    if track.complaint or not heard:
        words = f"ffmpeg says: {track.complaint}" if track.complaint else "it sends no sound"
        raise AudioError(truncation_message(heard, reason=words) if heard else f"cannot be heard: {words}")


class _Track:
    """One track of sound, decoded by a process of its own."""

    def __init__(self, source: str, number: int, facts: StreamInfo | None):
        self._command = [
            *input_command(source), "-v", "level+verbose", "-stats", "-i", source,
            "-map", f"0:a:{number}", "-af", f"aresample={SAMPLE_RATE}:async=1:min_hard_comp=0.05:first_pts=0",
            "-c:a", "pcm_f32be", "-f", "au", "-",
        ]  # fmt: skip
        if facts and facts.is_film and number == 0:  # the picture may last longer than the sound: copied to nowhere
            self._command += ["-map", "0:V:0?", "-c:v", "copy", "-f", "null", "-"]
        self._facts = facts
        self.complaint = ""  # the first
        self.reached = 0.0  # seconds of the input that were looked at
        self._dropped = 0  # samples, where times overlap
        self._blocks: queue.Queue[bytes] = queue.Queue(maxsize=4)
        self.stopped = threading.Event()

    def pieces(self) -> Iterator[np.ndarray]:
        """(samples, channels) as they come; ``complaint`` says, at the end, what ffmpeg did not like."""
        process = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)
        assert process.stdout is not None and process.stderr is not None  # both are pipes
        work = ((self._read, process.stdout), (self._listen, process.stderr))
        threads = [threading.Thread(target=read, args=(stream,), daemon=True) for read, stream in work]
        for thread in threads:
            thread.start()
        rest, channels = b"", 0
        try:
            while data := self._next(process):
                data = rest + data
                if not channels:
                    if len(data) < 24 or len(data) < int.from_bytes(data[4:8], "big"):
                        rest = data
                        continue
                    channels = int.from_bytes(data[20:24], "big")
                    if self._facts is None:
                        self.complaint = ""  # a camera refused one of the ways to it, and was reached by another
                    data = data[int.from_bytes(data[4:8], "big") :]
                size = len(data) // (4 * channels) * 4 * channels
                rest = data[size:]
                if size:
                    yield check_samples(np.frombuffer(data[:size], ">f4").astype(np.float32).reshape(-1, channels))
            threads[1].join(GIVE_UP_SECONDS)
            if process.wait() and not self.complaint:
                self.complaint = f"status {process.returncode}"
            if self._dropped > MAX_MISSING * SAMPLE_RATE and not self.complaint:
                self.complaint = f"{self._dropped / SAMPLE_RATE:.1f} s of sound are at the times of other sound"
        finally:
            self.stopped.set()
            process.kill()  # where nobody wants the rest
            process.wait()
            for thread in threads:
                thread.join()
            process.stdout.close()
            process.stderr.close()

    def _next(self, process: subprocess.Popen) -> bytes:
        """What was decoded since; nothing at the end, or where nothing comes."""
        until = time.monotonic() + GIVE_UP_SECONDS
        while not self.stopped.is_set():
            try:
                return self._blocks.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                if time.monotonic() > until:
                    self.complaint = f"nothing, for {GIVE_UP_SECONDS} seconds: given up"
                    break
        process.kill()  # else it might be waited for without end
        return b""

    def _read(self, stdout: IO[bytes]) -> None:
        """In a thread: what ffmpeg has decoded."""
        data = b"more"
        while data and not self.stopped.is_set():
            data = stdout.read(_BLOCK)
            while not self.stopped.is_set():
                try:
                    self._blocks.put(data, timeout=_POLL_SECONDS)
                    break
                except queue.Full:
                    continue

    def _listen(self, stderr: IO[bytes]) -> None:
        """In a thread: what ffmpeg says while it decodes."""
        rest = b""
        while data := stderr.read(1 << 16):
            *lines, rest = re.split(rb"[\r\n]", rest + data)
            rest = rest[-4_096:]
            for line in lines:
                if (reached := _TIME.search(line)) is not None:
                    self.reached = max(self.reached, _seconds(reached))
                elif (dropped := _DROPPED.search(line)) is not None:
                    self._dropped += int(dropped[1])
                elif not self.complaint:
                    self.complaint = self._complaint(line)

    def _complaint(self, line: bytes) -> str:
        """What a line says that is missing, "" where it is a remark, about the picture, or how such files are."""
        said = _COMPLAINT.match(line)
        if said is None or (said["level"] == b"warning" and not _FORGOTTEN.search(said["words"])):
            return ""
        by, words = (said["by"] or b"").decode(errors="replace"), said["words"].decode(errors="replace").strip()
        if by.startswith(("null", "vist", "vost")) or (
            self._facts and any(codec in by for codec in self._facts.pictures)
        ):
            return ""  # of the picture
        silences = self._facts is not None and any(codec.startswith("amr") for codec in self._facts.codecs)
        if silences and ("amr" in by or words.startswith("Error while decoding") or "decoding error" in words.lower()):
            return ""  # phones send nothing while nobody speaks
        return re.sub(r"^file:.*?: (?=[^:]*$)", "", words)


def input_command(source: str) -> list[str]:
    """How ffmpeg is called for a file or an address, up to the options of its input: which protocols and kinds of file
    it may open."""
    protocols, formats = "file", FORMATS
    if is_stream_url(source):
        protocols, formats = (
            ",".join((*SCHEMES, "tls", "httpproxy", "crypto")),
            f"{FORMATS},rtsp,rtp,hls,live_flv,mpjpeg,sdp",
        )
    program = shutil.which("ffmpeg") or "ffmpeg"
    command = [program, "-nostdin", "-hide_banner", "-protocol_whitelist", protocols, "-format_whitelist", formats]
    # Over UDP, sound is lost where the network is busy; but some cameras speak nothing else.
    return [*command, "-rtsp_flags", "prefer_tcp"] if source.lower().startswith("rtsp") else command


def _seconds(clock: re.Match[bytes]) -> float:
    hours, minutes, seconds = map(float, clock.groups())
    return hours * 3600 + minutes * 60 + seconds


def _side_by_side(tracks: list[Iterator[np.ndarray]]) -> Iterator[np.ndarray]:
    """The channels of all tracks in one array, (samples, channels); where one ends before the others, it is silent."""
    if len(tracks) == 1:
        yield from tracks[0]
        return
    widths: dict[int, int] = {}
    for parts in zip_longest(*(_in_blocks(track, 5 * SAMPLE_RATE) for track in tracks)):
        longest = max(len(part) for part in parts if part is not None)
        widths |= {number: part.shape[1] for number, part in enumerate(parts) if part is not None}
        padded = [np.zeros((longest, widths.get(number, 1)), np.float32) for number in range(len(parts))]
        for whole, part in zip(padded, parts, strict=True):
            if part is not None:
                whole[: len(part)] = part
        yield np.hstack(padded)


def _in_blocks(pieces: Iterator[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """The same sound in blocks of ``size`` samples, the last one shorter."""
    held: list[np.ndarray] = []
    for piece in pieces:
        held.append(piece)
        while sum(map(len, held)) >= size:
            joined = np.concatenate(held)
            yield joined[:size]
            held = [joined[size:]]
    if held and len(joined := np.concatenate(held)):
        yield joined
