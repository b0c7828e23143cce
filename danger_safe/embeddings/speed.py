"""How long an extraction will take, from how long the last one took on this computer."""

import json
from pathlib import Path

from danger_safe.core.atomic import atomic_write_text
from danger_safe.core.cache_folder import cache_folder
from danger_safe.core.errors import UserError

ENOUGH = 60.0  # seconds of sound: a shorter run tells nothing, loading is most of it


class Speed:
    """The speed of one network on one engine, kept in the cache folder between runs."""

    def __init__(self, sha256: str, engine: str, jobs: int):
        self._file = Path(cache_folder(), "speeds.json")
        self._key = f"{sha256[:16]} {engine} {jobs} jobs"

    @property
    def known(self) -> bool:
        """Whether there was a run to tell from."""
        return self._key in self._speeds()

    def estimate(self, sound: float, otherwise: float = 0.0) -> str:
        """In words, for so many seconds of sound: "About 40 seconds", "About 3 hours".

        ``otherwise``: seconds for a second of sound, where no run is known.
        """
        seconds = sound * self._speeds().get(self._key, otherwise)
        for unit, length in (("hours", 3600), ("minutes", 60)):
            if seconds >= 2 * length:
                return f"About {seconds / length:.0f} {unit}"
        return f"About {round(seconds)} seconds" if seconds >= 1.5 else "About a second"

    def remember(self, sound: float, seconds: float) -> None:
        """Keep what a run of ``sound`` seconds took."""
        if sound < ENOUGH:
            return
        try:
            atomic_write_text(self._file, json.dumps(self._speeds() | {self._key: seconds / sound}, indent=2) + "\n")
        except (OSError, UserError):
            return  # without a cache folder there is no estimate, and nothing else is lost

    def _speeds(self) -> dict[str, float]:
        try:
            speeds = json.loads(self._file.read_text(encoding="utf-8"))
            return {str(key): float(value) for key, value in speeds.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}
