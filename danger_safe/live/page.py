"""The page: what is heard now, why there is no alarm, the last events, and verdicts on them.

Its answers. See page_server.py for the server, page_access.py for who may see it, page_view.py for what it shows.
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
from danger_safe.live.event_picture import draw
from danger_safe.live.page_access import SESSION_S, Access
from danger_safe.live.page_view import View
from danger_safe.live.page_words import LANGUAGES, Words, choose
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

    from danger_safe.live.page_server import Server, body, guarded
except ModuleNotFoundError as error:
    raise UserError(f"[page] needs the package {error.name}: pip install -r requirements/live.txt") from error

FILES = Path(__file__).with_name("page_files")
STATIC = {"page.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml"}
SOUNDS = {".flac": "audio/flac", ".ogg": "audio/ogg"}
MAX_BODY = 4_096  # bytes of a request
MAX_PICTURES = 40  # that are held, 20 KB each


class Page:
    """Serves the page until it is closed."""

    def __init__(
        self, config: PageConfig, view: View, verdicts: dict[str, Verdict], file: Path,
        record: RecordConfig | None, say: Callable[[str], None],
    ):  # fmt: skip
        """``verdicts`` are those of ``file``, and grow with it.

        Raises UserError where the port cannot be had.
        """
        self._config, self._view, self._say, self._record = config, view, say, record
        self._verdicts, self._file = verdicts, file
        self._access = Access(config)
        self._pictures: OrderedDict[tuple, bytes] = OrderedDict()
        self._drawer = ThreadPoolExecutor(1)  # one picture at a time, each takes megabytes, while others are answered
        self._judging = threading.Lock()
        loader = FileSystemLoader(FILES)
        self._templates = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
        self._is_told = False
        app = Starlette(
            routes=[
                Route("/", self._front),
                Route("/state", self._state),
                Route("/sound/{name}", self._sound),
                Route("/picture/{name}", self._picture),
                Route("/verdict", self._judge, methods=["POST"]),
                Route("/login", self._log_in, methods=["POST"]),
                Route("/logout", self._log_out, methods=["POST"]),
                Route("/{name}", self._static),
            ],
            exception_handlers={Exception: self._failed},
        )
        self._server = Server(config.host, config.port, guarded(app, self._access), say)

    def start(self) -> None:
        """Answer requests from now on."""
        self._server.start()

    def close(self) -> None:
        """End it, whoever has it open."""
        self._server.close()
        self._drawer.shutdown(wait=False, cancel_futures=True)

    @property
    def address(self) -> str:
        """To open it."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._config.host, self._config.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self._config.port}"

    def _words(self, request: Request) -> Words:
        return Words(choose(request.cookies.get("language", ""), request.headers.get("accept-language", "")))

    def _session(self, request: Request) -> str:
        """Of somebody who may see the page. Raises HTTPException for anybody else."""
        session = self._access.session(request.cookies)
        if not self._access.may_see(session):
            raise HTTPException(401)
        return session

    async def _front(self, request: Request) -> Response:
        if (language := request.query_params.get("language")) in LANGUAGES:
            answer = RedirectResponse("/", 303)
            answer.set_cookie("language", language, max_age=365 * 86_400, samesite="strict")
            return answer
        if not self._access.may_see(self._access.session(request.cookies)):
            return self._form(request)
        return self._show(request, "page.html", sources=[source.name for source in self._view.sources])

    def _show(self, request: Request, template: str, status: int = 200, **values) -> Response:
        session = self._access.session(request.cookies) or self._access.new_session()
        text = self._templates.get_template(template).render(
            words=self._words(request), languages=LANGUAGES, token=self._access.token(session),
            has_password=self._access.needs_password, **values,
        )  # fmt: skip
        answer = HTMLResponse(text, status)
        self._set_session(answer, session)
        return answer

    def _form(self, request: Request, status: int = 200, problem: str = "") -> Response:
        return self._show(request, "login.html", status, problem=problem)

    def _set_session(self, answer: Response, session: str) -> None:
        answer.set_cookie(self._access.cookie, session, max_age=int(SESSION_S), httponly=True, samesite="strict")

    async def _log_in(self, request: Request) -> Response:
        given, words = await _fields(request), self._words(request)
        if not self._access.is_token(self._access.session(request.cookies), given.get("token", "")):
            return self._form(request, 403, words("expired"))
        session, wait_s = self._access.log_in(given.get("password", ""), request.client.host if request.client else "")
        if wait_s:
            return self._form(request, 429, words("wait", minutes=int(wait_s // 60) + 1))
        if not session:
            return self._form(request, 403, words("wrong"))
        answer = RedirectResponse("/", 303)
        self._set_session(answer, session)
        return answer

    async def _log_out(self, request: Request) -> Response:
        session, given = self._session(request), await _fields(request)
        if not self._access.is_token(session, given.get("token", "")):
            raise HTTPException(403)
        self._access.log_out(session)
        return RedirectResponse("/", 303)

    def _state(self, request: Request) -> Response:
        self._session(request)
        return JSONResponse(self._view.state(self._words(request), request.query_params.get("seen", "")))

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
        sound, windows = self._view.sound(event["id"]), self._view.windows(event["id"])
        key = (event["id"], sound, windows)  # both come later than the event, and may go
        if key not in self._pictures:
            before = min(self._record.before_seconds, event["start"]) if self._record else 0.0
            try:
                heard = load_windows(windows) if windows else None
                picture = draw(heard, sound, -before, event["end"] - event["start"], event["threshold"])
            except UserError:  # nothing was kept, or it cannot be read
                return None
            self._pictures[key] = picture
            while len(self._pictures) > MAX_PICTURES:
                self._pictures.popitem(last=False)
        self._pictures.move_to_end(key)
        return self._pictures[key]

    async def _judge(self, request: Request) -> Response:
        session = self._session(request)
        if not self._access.is_token(session, request.headers.get("x-token", "")):
            raise HTTPException(403)
        try:
            given = json.loads(await body(request, MAX_BODY) or b"")
            event, said = self._view.events.get(given["event"]), given["verdict"]
            if said not in VERDICTS:
                raise ValueError
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise HTTPException(400) from error
        if event is None:
            raise HTTPException(404)
        try:
            await run_in_threadpool(self._write_verdict, event, said)
        except (OSError, UserError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            self._say(f"{self._file}: a verdict could not be written: {reason}")
            return JSONResponse({"problem": self._words(request)("not saved", why=reason)}, 507)
        return JSONResponse({})

    def _write_verdict(self, event: dict, said: str) -> None:
        name, folder = event["id"], self._file.parent
        sound, windows = self._view.sound(name), self._view.windows(name)
        with self._judging:
            verdict = Verdict(
                name, event["source"], datetime.now().astimezone().isoformat(timespec="milliseconds"), said,
                event["category"],
                relative_path(sound, folder) if sound else None, relative_path(windows, folder) if windows else None,
            )  # fmt: skip
            append_verdict(self._file, verdict)
            if said == NONE:
                self._verdicts.pop(name, None)
            else:
                self._verdicts[name] = verdict

    async def _static(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in STATIC:
            raise HTTPException(404)
        return Response((FILES / name).read_bytes(), media_type=STATIC[name])

    async def _failed(self, _request: Request, error: Exception) -> Response:
        if not self._is_told:
            self._is_told = True
            self._say(f"the page could not answer: {type(error).__name__}: {one_line(str(error))}; listening goes on")
        return PlainTextResponse("listen.py could not answer this.", 500)


async def _fields(request: Request) -> dict[str, str]:
    """Of a form that was sent; none where it was too long."""
    text = (await body(request, MAX_BODY) or b"").decode("utf-8", "replace")
    try:
        return {name: values[0] for name, values in parse_qs(text, max_num_fields=10).items()}
    except ValueError:
        return {}
