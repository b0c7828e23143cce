"""The documents name only flags, files, commands and numbers that exist, and both READMEs say the same."""

import ast
import re
from functools import cache

import pytest
from helpers import ROOT
from PIL import Image

from danger_safe.__main__ import COMMANDS
from danger_safe.detection.detector import load_builtin
from tools import model_card

READMES = (ROOT / "README.md", ROOT / "README.vi.md")
PAGES = (
    *READMES, *sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md", ROOT / "models" / "README.md",
    ROOT / "requirements" / "README.md",
)  # fmt: skip
MAX_LINES = 130
MAX_PICTURE_BYTES = 100_000
# Flags of pip, Dask, ffmpeg, pytest, systemctl and docker.
OTHERS_FLAGS = {
    "--require-hashes", "--port", "--nthreads", "--now", "--init", "--name", "--restart", "--read-only", "--tmpfs",
}  # fmt: skip
INSTALLED = "/opt/danger-safe/"  # where docs/raspberry-pi.md installs this project
# Files of the reader's own, and placeholders.
READERS_FILES = {
    "recording.wav", "kitchen.wav", "windows.csv", "my_cnn14.pth", "my_mapping.toml", "my_embeddings.csv",
    "table.parquet",
}  # fmt: skip
SUFFIXES = "py|md|csv|json|jsonl|png|html|skops|joblib|npz|toml|txt|lock|pth|pt|wav|flac|parquet|journal"


def text_of(page):
    return page.read_text(encoding="utf-8")


def code_of(page):
    """Return the lines of fenced blocks and the inline code of a page."""
    text = text_of(page)
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    return [re.sub(r"\s+#.*", "", line).strip() for block in blocks for line in block.splitlines()] + inline


def anchors(page):
    """Return the anchors of a page's headings as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)", text_of(page), re.MULTILINE)
    return [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]


def commands(page):
    return [line for line in code_of(page) if re.match(r"(python3?|py|pip|make|danger-safe|source|Set-\w+) ", line)]


@cache
def flags_of(script):
    """Return the flags in a script and in the project's modules that it imports."""
    sources = [ROOT / script, ROOT / "danger_safe" / "core" / "cli.py"]
    for node in ast.walk(ast.parse(text_of(ROOT / script))):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("danger_safe."):
            sources.append(ROOT / (node.module.replace(".", "/") + ".py"))
    return set().union(*(re.findall(r"[\"'](--[a-z][a-z0-9-]+)[\"']", text_of(s)) for s in sources if s.is_file()))


@cache
def all_sources():
    folders = ("danger_safe", "models", "tools", "benchmarks", "fuzz")
    files = [*ROOT.glob("*.py"), *(path for folder in folders for path in (ROOT / folder).rglob("*.py"))]
    return "\n".join(map(text_of, [*files, *(ROOT / "danger_safe").rglob("*.toml"), ROOT / "Makefile"]))


@pytest.mark.parametrize("readme", READMES, ids=lambda page: page.name)
def test_readmes_are_short(readme):
    assert len(text_of(readme).splitlines()) <= MAX_LINES
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", text_of(readme))
    assert len(pictures) == 1
    picture = ROOT / pictures[0]
    assert picture.stat().st_size <= MAX_PICTURE_BYTES
    Image.open(picture).verify()


def test_both_readmes_say_the_same():
    english, vietnamese = map(text_of, READMES)
    assert len(vietnamese.splitlines()) <= len(english.splitlines())
    assert commands(READMES[0]) == commands(READMES[1])
    assert re.findall("^#+", english, re.MULTILINE) == re.findall("^#+", vietnamese, re.MULTILINE)
    flags, files, links = r"--[a-z][a-z-]+", r"`([^`\n]+)`", r"\]\((.*?)\)"
    for pattern in (flags, files, links):
        found = [set(re.findall(pattern, text)) - {"README.md", "README.vi.md"} for text in (english, vietnamese)]
        assert found[0] == found[1]


def test_vietnamese_terms():
    text = re.sub(r"^```.*?^```|`[^`]*`|\]\(.*?\)", " ", text_of(READMES[1]), flags=re.MULTILINE | re.DOTALL)
    network_or_internet = re.findall(r"(?<!tính )\bmạng\b(?!\s+nơ-ron)\s+\S+", text, re.IGNORECASE)
    assert not network_or_internet, "a neural network is a mạng nơ-ron, and the Internet is the Internet"
    versions = r"Python \d\.\d+|PyTorch [\d.]+|CC BY(-NC)? \d\.\d|\d\.\d{3}\b"
    assert not re.findall(r"\d\.\d", re.sub(versions, "", text)), "decimal commas"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}/{page.name}")
def test_flags_files_and_commands_of_a_page_exist(page):
    text = text_of(page)
    for target, heading in re.findall(r"\]\(([^)#]+)#?([^)]*)\)", text):
        assert "://" in target or (page.parent / target).exists(), target
        assert not heading or heading in anchors(page.parent / target), f"{target}#{heading}"
    for line in code_of(page):
        line = line.replace(INSTALLED, "")
        for script in re.findall(r"\b(\w+\.py)\b.*--", line):
            if (ROOT / script).is_file():
                flags = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", line[line.index(script) :]))
                assert flags <= flags_of(script), line
        for command in re.findall(r"danger-safe ((?:train )?[a-z]+)", line):
            assert command in COMMANDS or line.startswith("danger-safe/"), line
        for target in re.findall(r"^make ([a-z]\w+)", line):
            assert re.search(rf"^{target}:", text_of(ROOT / "Makefile"), re.MULTILINE), line
        for flag in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", line):
            assert flag in OTHERS_FLAGS or f'"{flag}"' in all_sources(), flag
        for name in re.findall(rf"[\w./*…=-]+\.(?:{SUFFIXES})\b", line):
            if "NAME" in name or "ID" in name or name.startswith("/"):  # the last are on the reader's computer
                continue
            stem = name.rpartition("/")[2].replace("*", "").lstrip("_.")
            places = (page.parent, ROOT, ROOT / "models", ROOT / "tests", ROOT / "danger_safe", ROOT / "requirements")
            is_there = any((place / name).exists() for place in places) or bool([*ROOT.glob(name)])
            is_sample = re.fullmatch(r"sample/\w+/[\w-]+\.wav", name)
            assert is_there or is_sample or stem in READERS_FILES or stem in all_sources(), name


def test_numbers_are_those_of_the_included_detector():
    about = load_builtin().about
    card = text_of(model_card.CARD)
    assert model_card.numbers(about) in card, "run python -m tools.model_card"
    normal = about["sensitivities"]["normal"]
    recall, alarms = (f"{100 * normal[key][0]:.0f} %" for key in ("danger_recall", "false_alarms"))
    rate, low, high = normal["false_alarms_per_hour"]
    for readme, says in zip(READMES, (f"about {rate:.0f} an hour", f"khoảng {rate:.0f} lần mỗi giờ"), strict=True):
        text = " ".join(text_of(readme).split())
        interval = (
            f"({low:.1f} to {high:.1f})"
            if readme.name == "README.md"
            else f"({low:.1f} đến {high:.1f})".replace(".", ",")
        )
        for number in (recall, alarms, f"{says} {interval}"):
            assert number in text, f"{readme.name}: {number}"
