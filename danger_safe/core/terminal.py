"""Text made safe for a terminal: a file name may contain control characters, or reverse the direction of a line."""

import io
import json
import re
from unicodedata import category

# Unicode categories that are escaped: control and format characters (which include direction marks and invisible ones),
# surrogates (undecodable bytes), line and paragraph separators. The two joiners are kept: Persian and emoji need them.
_CONTROL_CATEGORIES = ("Cc", "Cf", "Cs", "Zl", "Zp")
_JOINERS = "\u200c\u200d"
_RTL = "\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefe\U00010800-\U00010fff\U0001e800-\U0001eeff"  # Hebrew, Arabic …
_RTL_RUN = re.compile(f"[{_RTL}](?:[ '’_{_JOINERS}-]*[{_RTL}])*")
_FIRST_STRONG_ISOLATE, _POP_ISOLATE = "\u2068", "\u2069"


def one_line(text: str) -> str:
    """Return text as one line: line ends and other control characters are escaped as ``\\n`` and the like."""
    return "".join(_escape(c) if _is_control(c) else c for c in text.strip())


def one_json_line(content: object) -> str:
    """Return content as one line of JSON, in which only the characters that ``one_line`` escapes are escaped."""
    line = json.dumps(content, ensure_ascii=False)
    return "".join(json.dumps(c)[1:-1] if _is_control(c) else c for c in line)


def isolate_rtl(text: str) -> str:
    """Wrap right-to-left words in directional isolates, so that they do not reorder the text around them."""
    return _RTL_RUN.sub(lambda run: f"{_FIRST_STRONG_ISOLATE}{run[0]}{_POP_ISOLATE}", text)


def _is_control(character: str) -> bool:
    return category(character) in _CONTROL_CATEGORIES and character not in _JOINERS


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()


class Terminal(io.TextIOWrapper):
    """Replaces sys.stdout or sys.stderr on a terminal."""

    def __init__(self, stream: io.TextIOWrapper, escape_controls: bool):
        """
        Args:
            stream: the text stream to replace; it is detached.
            escape_controls: escape control characters. Not for stderr, where progress bars move the cursor.
        """
        self._escape_controls = escape_controls
        settings = {"encoding": stream.encoding, "errors": stream.errors, "line_buffering": True}
        super().__init__(stream.detach(), **settings)

    def write(self, text: str) -> int:
        """Write text, made safe."""
        if self._escape_controls:
            text = "".join(c if c in "\n\t" or not _is_control(c) else _escape(c) for c in text)
        return super().write(isolate_rtl(text))
