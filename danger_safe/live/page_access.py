"""Who may see the page and press its buttons: names of this computer, requests of our own page, sessions, passwords.

Without a password the page is only for this computer. There the dangers are other web sites that the same browser has
open: they can send requests here, and by DNS rebinding even read the answers. Therefore the Host has to be a name of
this computer, what changes anything has to come from a page of ours (Origin) and carry its token, and cookies are not
sent along from elsewhere (SameSite).
"""

import hashlib
import hmac
import ipaddress
import re
import secrets
import socket
import time
from collections import OrderedDict, deque

from danger_safe.live.config import PageConfig

SESSION_S = 30 * 86_400.0  # that a login lasts
MAX_SESSIONS = 100  # logins; the oldest ends
WRONG_S = 300.0  # for which a wrong password is remembered
MAX_WRONG = 5  # of one address in that time
MAX_WRONG_OF_ALL = 100
MAX_ADDRESSES = 1000  # that are remembered
_SESSION = re.compile(r"[\w-]{43}")


class Access:
    """The rules for one page."""

    def __init__(self, config: PageConfig):
        self.needs_password = bool(config.password)
        self.cookie = f"danger-safe-{config.port}"  # cookies do not tell ports apart
        self._password = _digest(config.password)
        self._names = {"localhost", *config.names}
        if self.needs_password:
            own = socket.gethostname().lower()
            self._names |= {config.host.lower(), own, f"{own}.local"}
        self._key = secrets.token_bytes(32)  # of the tokens
        self._sessions: OrderedDict[str, float] = OrderedDict()  # session -> until when (time.monotonic)
        self._attempts = _Attempts()

    def knows_host(self, host: str) -> bool:
        """Whether the Host header of a request names this computer. With a password any address does; names have to be
        known,
        or a web site could give its own name to this computer's address."""
        name = re.sub(r":\d+$", "", host.lower())
        if name in self._names:
            return True
        try:
            address = ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
        except ValueError:
            return False
        return self.needs_password or address.is_loopback

    @staticmethod
    def is_from_elsewhere(headers) -> bool:
        """Whether another site's page has asked: a browser says so. A link from there may open our page, no more."""
        is_ours = headers.get("sec-fetch-site", "none") in ("none", "same-origin")
        return not is_ours and headers.get("sec-fetch-mode") != "navigate"

    @staticmethod
    def is_own_page(headers) -> bool:
        """Whether a request that changes something comes from a page of ours."""
        return headers.get("origin", "").lower().partition("://")[2] == headers.get("host", "").lower() != ""

    @staticmethod
    def new_session() -> str:
        """A name that nobody can guess."""
        return secrets.token_urlsafe(32)

    def session(self, cookies) -> str:
        """Of a request; empty where it has none."""
        session = cookies.get(self.cookie, "")
        return session if _SESSION.fullmatch(session) else ""

    def token(self, session: str) -> str:
        """What requests of that session that change something have to carry."""
        return hmac.new(self._key, session.encode(), hashlib.sha256).hexdigest()

    def is_token(self, session: str, token: str) -> bool:
        """Whether it is the session's."""
        return bool(session) and hmac.compare_digest(self.token(session).encode(), token.encode())

    def may_see(self, session: str) -> bool:
        """Whether it has given the password, where there is one."""
        return not self.needs_password or self._sessions.get(session, 0.0) > time.monotonic()

    def log_in(self, password: str, address: str) -> tuple[str, float]:
        """(session, 0) for the right password, or else ("", seconds until it may be tried again, 0 for at once)."""
        if wait_s := self._attempts.begin(address):
            return "", wait_s
        if not hmac.compare_digest(_digest(password), self._password):
            return "", 0.0
        self._attempts.forgive(address)
        session = self.new_session()
        self._sessions[session] = time.monotonic() + SESSION_S
        while len(self._sessions) > MAX_SESSIONS:
            self._sessions.popitem(last=False)
        return session, 0.0

    def log_out(self, session: str) -> None:
        """End it."""
        self._sessions.pop(session, None)


class _Attempts:
    """Passwords that were tried, of each address and of all: few are allowed in a time."""

    def __init__(self) -> None:
        self._tried: OrderedDict[str, deque[float]] = OrderedDict()
        self._all: deque[float] = deque(maxlen=MAX_WRONG_OF_ALL)

    def begin(self, address: str) -> float:
        """Count an attempt; where it is one too many, the seconds until the next is allowed."""
        now, place = time.monotonic(), _network(address)
        tried = self._tried.setdefault(place, deque(maxlen=MAX_WRONG))
        self._tried.move_to_end(place)
        while len(self._tried) > MAX_ADDRESSES:
            self._tried.popitem(last=False)
        waits = [
            times[0] + WRONG_S - now
            for times in (tried, self._all)
            if len(times) == times.maxlen and times[0] > now - WRONG_S
        ]
        if waits:
            return max(waits)
        tried.append(now)
        self._all.append(now)
        return 0.0

    def forgive(self, address: str) -> None:
        """The last attempt was right."""
        self._tried.pop(_network(address), None)
        self._all.pop()


def _network(address: str) -> str:
    """An address; of IPv6 its network, in which one computer has as many addresses as it likes."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    return str(ip if ip.version == 4 else ipaddress.ip_network((ip, 64), strict=False))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
