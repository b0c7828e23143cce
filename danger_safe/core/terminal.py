"""Text as a terminal may be shown it: a name is from anybody, and may hold what moves the cursor or turns a line
round."""

import io
import json
import re
from unicodedata import category

# Of Unicode's categories: control characters, marks that turn the direction of text or cannot be seen, line ends, bytes
# that are no text. The two joiners, which Persian and emoji need, are none of them.
_CONTROL = ("Cc", "Cf", "Cs", "Zl", "Zp")
_JOINERS = "\u200c\u200d"
_RIGHT_TO_LEFT = "\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefe\U00010800-\U00010fff\U0001e800-\U0001eeff"  # Hebrew, Arabic …
_WORDS = re.compile(f"[{_RIGHT_TO_LEFT}](?:[ '’_{_JOINERS}-]*[{_RIGHT_TO_LEFT}])*")
_ISOLATE, _END_OF_ISOLATE = "\u2068", "\u2069"


def one_line(text: str) -> str:
    """Text as one line: line ends and other control characters, which file names may hold, as ``\\n`` and the like."""
    return "".join(c.encode("unicode_escape").decode() if _is_unseen(c) else c for c in text.strip())


def one_json_line(content: object) -> str:
    """Content as a line of JSON that can be shown on a terminal: text as it is, but for what ``one_line`` escapes."""
    line = json.dumps(content, ensure_ascii=False)
    return "".join(json.dumps(c)[1:-1] if _is_unseen(c) else c for c in line)


def isolated(text: str) -> str:
    """Text whose words that are written from right to left do not turn round what stands beside them."""
    return _WORDS.sub(lambda words: f"{_ISOLATE}{words[0]}{_END_OF_ISOLATE}", text)


def _is_unseen(character: str) -> bool:
    return category(character) in _CONTROL and character not in _JOINERS


class Terminal(io.TextIOWrapper):
    """stdout or stderr on a terminal, in the place of Python's own."""

    def __init__(self, stream: io.TextIOWrapper, is_ours: bool):
        """``is_ours``: only this project writes there, and no control character. Progress bars do so on stderr."""
        self._is_ours = is_ours
        settings = {"encoding": stream.encoding, "errors": stream.errors, "line_buffering": True}
        super().__init__(stream.detach(), **settings)

    def write(self, text: str) -> int:
        """Write what may be shown of the text."""
        if self._is_ours:
            text = "".join(c if c in "\n\t" or not _is_unseen(c) else c.encode("unicode_escape").decode() for c in text)
        return super().write(isolated(text))
