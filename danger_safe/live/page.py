"""The page's requests and responses: the sources' states, why there is no alarm, the last events, verdicts on them.

See page_server.py for the server, page_access.py for who may open the page, page_view.py for its contents.
"""

import asyncio
import json
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from urllib.parse import parse_qs

from danger_safe.core.cli import one_line
from danger_safe.core.errors import UserError
from danger_safe.live.config import PageConfig, RecordConfig
from danger_safe.live.event_picture import draw_event_svg
from danger_safe.live.page_access import SESSION_S, Access
from danger_safe.live.page_texts import LANGUAGES, Texts, choose_language
from danger_safe.live.page_view import View
from danger_safe.live.verdicts import NONE, VERDICTS, Verdict, append_verdict, load_windows, relative_path

try:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import (
        FileResponse,
        HTMLResponse,
        JSONResponse,
        PlainTextResponse,
        RedirectResponse,
        Response,
    )
    from starlette.routing import Route

    from danger_safe.live.page_server import Server, guard, read_body
except ModuleNotFoundError as error:
    raise UserError(f"[page] needs the package {error.name}: pip install -r requirements/live.txt") from error

FILES = Path(__file__).with_name("page_files")
STATIC = {"page.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml"}
SOUNDS = {".flac": "audio/flac", ".ogg": "audio/ogg"}
MAX_BODY = 4_096  # bytes of a request
MAX_PICTURES = 40  # in the cache, 20 KB each


class Page:
    """Serves the page until it is closed."""

    def __init__(
        self,
        config: PageConfig,
        view: View,
        verdicts: dict[str, Verdict],
        file: Path,
        record: RecordConfig | None,
        say: Callable[[str], None],
    ):
        """Open the port; ``start`` starts to answer requests.

        Args:
            config: The page's settings.
            view: What it shows.
            verdicts: The verdicts in ``file`` by the events' ids; new ones are added.
            file: verdicts.jsonl.
            record: The settings of recordings, if sounds are recorded.
            say: Reports problems.

        Raises:
            UserError: The port cannot be opened.
        """
        self._config, self._view, self._say, self._record = config, view, say, record
        self._verdicts, self._file = verdicts, file
        self._access = Access(config)
        self._pictures: OrderedDict[tuple, bytes] = OrderedDict()
        self._drawer = ThreadPoolExecutor(1)  # one picture at a time, as each needs megabytes, beside other requests
        self._verdict_lock = threading.Lock()
        loader = FileSystemLoader(FILES)
        self._templates = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
        self._has_reported = False  # a failed request
        app = Starlette(
            routes=[
                Route("/", self._front),
                Route("/state", self._state),
                Route("/sound/{name}", self._sound),
                Route("/picture/{name}", self._picture),
                Route("/verdict", self._post_verdict, methods=["POST"]),
                Route("/login", self._log_in, methods=["POST"]),
                Route("/logout", self._log_out, methods=["POST"]),
                Route("/{name}", self._static),
            ],
            exception_handlers={Exception: self._on_failure},
        )
        self._server = Server(config.host, config.port, guard(app, self._access), say)

    def start(self) -> None:
        """Start to answer requests."""
        self._server.start()

    def close(self) -> None:
        """Stop answering requests and close all connections."""
        self._server.close()
        self._drawer.shutdown(wait=False, cancel_futures=True)

    @property
    def address(self) -> str:
        """The URL to open in a browser."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._config.host, self._config.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self._config.port}"

    def _texts(self, request: Request) -> Texts:
        return Texts(choose_language(request.cookies.get("language", ""), request.headers.get("accept-language", "")))

    def _session(self, request: Request) -> str:
        """Return the session of a request that may see the page. Raises HTTPException for any other."""
        session = self._access.session(request.cookies)
        if not self._access.may_see(session):
            raise HTTPException(401)
        return session

    async def _front(self, request: Request) -> Response:
        if (language := request.query_params.get("language")) in LANGUAGES:
            response = RedirectResponse("/", 303)
            response.set_cookie("language", language, max_age=365 * 86_400, samesite="strict")
            return response
        if not self._access.may_see(self._access.session(request.cookies)):
            return self._login_form(request)
        return self._render(request, "page.html", sources=[source.name for source in self._view.sources])

    def _render(self, request: Request, template: str, status: int = 200, **values) -> Response:
        session = self._access.session(request.cookies) or self._access.new_session()
        html = self._templates.get_template(template).render(
            texts=self._texts(request),
            languages=LANGUAGES,
            token=self._access.token(session),
            has_password=self._access.needs_password,
            **values,
        )
        response = HTMLResponse(html, status)
        self._set_session(response, session)
        return response

    def _login_form(self, request: Request, status: int = 200, problem: str = "") -> Response:
        return self._render(request, "login.html", status, problem=problem)

    def _set_session(self, response: Response, session: str) -> None:
        response.set_cookie(self._access.cookie, session, max_age=int(SESSION_S), httponly=True, samesite="strict")

    async def _log_in(self, request: Request) -> Response:
        fields, texts = await _read_form(request), self._texts(request)
        if not self._access.is_token(self._access.session(request.cookies), fields.get("token", "")):
            return self._login_form(request, 403, texts("expired"))
        address = request.client.host if request.client else ""
        session, wait_s = self._access.log_in(fields.get("password", ""), address)
        if wait_s:
            return self._login_form(request, 429, texts("wait", minutes=int(wait_s // 60) + 1))
        if not session:
            return self._login_form(request, 403, texts("wrong"))
        response = RedirectResponse("/", 303)
        self._set_session(response, session)
        return response

    async def _log_out(self, request: Request) -> Response:
        session, fields = self._session(request), await _read_form(request)
        if not self._access.is_token(session, fields.get("token", "")):
            raise HTTPException(403)
        self._access.log_out(session)
        return RedirectResponse("/", 303)

    def _state(self, request: Request) -> Response:
        self._session(request)
        return JSONResponse(self._view.state(self._texts(request), request.query_params.get("seen", "")))

    def _sound(self, request: Request) -> Response:
        self._session(request)
        path = self._view.sound(request.path_params["name"])
        if path is None:
            raise HTTPException(404)
        return FileResponse(path, media_type=SOUNDS[path.suffix])

    async def _picture(self, request: Request) -> Response:
        self._session(request)
        event = self._view.events.get(request.path_params["name"])
        picture = await asyncio.wrap_future(self._drawer.submit(self._draw, event)) if event else None
        if picture is None:
            raise HTTPException(404)
        return Response(picture, media_type="image/svg+xml")

    def _draw(self, event: dict) -> bytes | None:
        """Return an event's picture, from the cache if it is there; None if nothing of the event was kept."""
        sound, windows = self._view.sound(event["id"]), self._view.windows(event["id"])
        key = (event["id"], sound, windows)  # both are written after the event, and may be removed
        if key not in self._pictures:
            before = min(self._record.before_seconds, event["start"]) if self._record else 0.0
            try:
                loaded = load_windows(windows) if windows else None
                length = event["end"] - event["start"]
                picture = draw_event_svg(loaded, sound, -before, length, event["threshold"])
            except UserError:  # there is neither sound nor windows, or they cannot be read
                return None
            self._pictures[key] = picture
            while len(self._pictures) > MAX_PICTURES:
                self._pictures.popitem(last=False)
        self._pictures.move_to_end(key)
        return self._pictures[key]

    async def _post_verdict(self, request: Request) -> Response:
        session = self._session(request)
        if not self._access.is_token(session, request.headers.get("x-token", "")):
            raise HTTPException(403)
        try:
            fields = json.loads(await read_body(request, MAX_BODY) or b"")
            event, verdict = self._view.events.get(fields["event"]), fields["verdict"]
            if verdict not in VERDICTS:
                raise ValueError
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise HTTPException(400) from error
        if event is None:
            raise HTTPException(404)
        try:
            await run_in_threadpool(self._write_verdict, event, verdict)
        except (OSError, UserError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            self._say(f"{self._file}: a verdict could not be written: {reason}")
            return JSONResponse({"problem": self._texts(request)("not saved", why=reason)}, 507)
        return JSONResponse({})

    def _write_verdict(self, event: dict, verdict: str) -> None:
        event_id, folder = event["id"], self._file.parent
        sound, windows = self._view.sound(event_id), self._view.windows(event_id)
        now = datetime.now().astimezone().isoformat(timespec="milliseconds")
        with self._verdict_lock:
            record = Verdict(
                event_id,
                event["source"],
                now,
                verdict,
                event["category"],
                sound=relative_path(sound, folder) if sound else None,
                embeddings=relative_path(windows, folder) if windows else None,
            )
            append_verdict(self._file, record)
            if verdict == NONE:
                self._verdicts.pop(event_id, None)
            else:
                self._verdicts[event_id] = record

    async def _static(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in STATIC:
            raise HTTPException(404)
        return Response((FILES / name).read_bytes(), media_type=STATIC[name])

    async def _on_failure(self, _request: Request, error: Exception) -> Response:
        if not self._has_reported:
            self._has_reported = True
            self._say(f"the page could not answer: {type(error).__name__}: {one_line(str(error))}; listening goes on")
        return PlainTextResponse("listen.py could not answer this.", 500)


async def _read_form(request: Request) -> dict[str, str]:
    """Return the fields of a submitted form; none if it is too long."""
    text = (await read_body(request, MAX_BODY) or b"").decode("utf-8", "replace")
    try:
        return {name: values[0] for name, values in parse_qs(text, max_num_fields=10).items()}
    except ValueError:
        return {}
