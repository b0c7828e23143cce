"""The locks match the requirements files for every supported platform."""

import re

import pytest
from helpers import ROOT

from tools.licences import UNKNOWN, rows
from tools.lock import FOLDER, PLATFORMS, PYTHONS, SOURCES, missing, read, requirements_file

LOCKS = {path.stem: read(path) for path in FOLDER.glob("*.lock")}
EVERYTHING = [package for packages in LOCKS.values() for package in packages]


@pytest.mark.parametrize("source", SOURCES)
def test_every_pin_is_locked_at_its_version(source):
    """In its own lock, one that it includes, or PyTorch's."""
    leads_to = [source]
    while SOURCES[leads_to[-1]]:
        leads_to.append(SOURCES[leads_to[-1]])
    locked = {(package.name, package.version) for name in [*leads_to, "torch"] for package in LOCKS[name]}
    text = requirements_file(source).read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith(("#", "-r "))]
    pins = [re.match(r"([\w-]+)==([\w.]+)", line) for line in lines]
    assert all(pins), f"not an exact version: {lines}"
    assert {(pin[1].lower().replace("_", "-"), pin[2]) for pin in pins} <= locked
    first = SOURCES[source]
    begins = [(requirements_file(source).parent / name).resolve() for name in re.findall(r"^-r (\S+)", text, re.M)]
    assert begins == ([requirements_file(first)] if first else [])
    lock = (FOLDER / f"{source}.lock").read_text(encoding="utf-8")
    assert re.findall(r"^-r (\S+)", lock, re.M) == ([f"{first}.lock"] if first else [])


def test_every_supported_platform_has_a_file_with_a_hash():
    without = {
        f"{platform}, Python {python}": names
        for platform in PLATFORMS
        for python in PYTHONS
        if (names := missing(EVERYTHING, platform, python))
    }
    assert not without
    assert all(package.files for package in EVERYTHING)


def test_no_package_has_two_versions_on_one_platform():
    for platform in PLATFORMS:
        for python in PYTHONS:
            needed = {(p.name, p.version) for p in EVERYTHING if p.is_needed(platform, python)}
            assert len(needed) == len({name for name, _ in needed}), (platform, python)


def test_every_licence_is_listed():
    listed = rows((ROOT / "LICENCES.md").read_text(encoding="utf-8"))
    assert set(listed) == {(package.name, package.version) for package in EVERYTHING}
    assert UNKNOWN not in listed.values()
    gpl = [name for name, licence in listed.items() if re.search(r"(?<!L)GPL", licence)]
    assert not gpl
