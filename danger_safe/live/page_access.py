"""Who may open the page and press its buttons: host names, same-origin checks, sessions, tokens and passwords.

Without a password the page is only for this computer. There the dangers are other web sites in the same browser: they
can send requests to the page, and by DNS rebinding even read the responses. Therefore the Host header must be a name of
this computer, requests that change anything must come from the page itself (Origin) with its token, and cookies are not
sent with requests of other sites (SameSite).
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

SESSION_S = 30 * 86_400.0  # seconds until a login expires
MAX_SESSIONS = 100  # logins; beyond it the oldest is logged out
WRONG_S = 300.0  # seconds for which wrong passwords count
MAX_WRONG = 5  # wrong passwords per address in that time
MAX_WRONG_TOTAL = 100  # of all addresses
MAX_ADDRESSES = 1000  # addresses whose wrong passwords are counted
_SESSION = re.compile(r"[\w-]{43}")


class Access:
    """The access rules of one page."""

    def __init__(self, config: PageConfig):
        self.needs_password = bool(config.password)
        self.cookie = f"danger-safe-{config.port}"  # cookies do not tell ports apart
        self._password = _digest(config.password)
        self._names = {"localhost", *config.names}
        if self.needs_password:
            host_name = socket.gethostname().lower()
            self._names |= {config.host.lower(), host_name, f"{host_name}.local"}
        self._key = secrets.token_bytes(32)  # signs the tokens
        self._sessions: OrderedDict[str, float] = OrderedDict()  # session: expiry by time.monotonic
        self._attempts = _Attempts()

    def knows_host(self, host: str) -> bool:
        """Return whether a request's Host header names this computer.

        With a password any IP address is allowed, but only known names: a web site could point its own name to this
        computer's address.
        """
        name = re.sub(r":\d+$", "", host.lower())
        if name in self._names:
            return True
        try:
            address = ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
        except ValueError:
            return False
        return self.needs_password or address.is_loopback

    @staticmethod
    def is_cross_site(headers) -> bool:
        """Return whether a browser says that another site sent the request; following a link is allowed."""
        is_same_site = headers.get("sec-fetch-site", "none") in ("none", "same-origin")
        return not is_same_site and headers.get("sec-fetch-mode") != "navigate"

    @staticmethod
    def is_same_origin(headers) -> bool:
        """Return whether a request that changes something was sent by the page itself."""
        return headers.get("origin", "").lower().partition("://")[2] == headers.get("host", "").lower() != ""

    @staticmethod
    def new_session() -> str:
        """Return a random session name."""
        return secrets.token_urlsafe(32)

    def session(self, cookies) -> str:
        """Return the session in a request's cookies; empty if there is none."""
        session = cookies.get(self.cookie, "")
        return session if _SESSION.fullmatch(session) else ""

    def token(self, session: str) -> str:
        """Return the token that requests of a session need in order to change something."""
        return hmac.new(self._key, session.encode(), hashlib.sha256).hexdigest()

    def is_token(self, session: str, token: str) -> bool:
        """Return whether a token is that of the session."""
        return bool(session) and hmac.compare_digest(self.token(session).encode(), token.encode())

    def may_see(self, session: str) -> bool:
        """Return whether a session is logged in, or no password is needed."""
        return not self.needs_password or self._sessions.get(session, 0.0) > time.monotonic()

    def log_in(self, password: str, address: str) -> tuple[str, float]:
        """Return (session, 0) for the right password, otherwise ("", seconds to wait before the next attempt)."""
        if wait_s := self._attempts.add(address):
            return "", wait_s
        if not hmac.compare_digest(_digest(password), self._password):
            return "", 0.0
        self._attempts.remove(address)
        session = self.new_session()
        self._sessions[session] = time.monotonic() + SESSION_S
        while len(self._sessions) > MAX_SESSIONS:
            self._sessions.popitem(last=False)
        return session, 0.0

    def log_out(self, session: str) -> None:
        """Log a session out."""
        self._sessions.pop(session, None)


class _Attempts:
    """Counts wrong passwords, per address and in total, and limits them."""

    def __init__(self) -> None:
        self._tried: OrderedDict[str, deque[float]] = OrderedDict()
        self._all: deque[float] = deque(maxlen=MAX_WRONG_TOTAL)

    def add(self, address: str) -> float:
        """Count an attempt; if there were too many, return the seconds until the next is allowed instead."""
        now, network = time.monotonic(), _network(address)
        tried = self._tried.setdefault(network, deque(maxlen=MAX_WRONG))
        self._tried.move_to_end(network)
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

    def remove(self, address: str) -> None:
        """Remove the attempts of an address, after the right password."""
        self._tried.pop(_network(address), None)
        self._all.pop()


def _network(address: str) -> str:
    """Return an address, or for IPv6 its /64 network, in which one computer may use many addresses."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    return str(ip if ip.version == 4 else ipaddress.ip_network((ip, 64), strict=False))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
