"""Bad tables of ESC-50, mappings and file names: a one-line error, the exit status, and no unexpected files.

The scripts' ``main`` runs in this process (``refused``), because hundreds of process starts would take minutes.
"""

import csv
import os
import unicodedata

import pytest
from helpers import run_in_process, write_esc50
from hostile_files import encoded, noise

from danger_safe.core.errors import UserError
from danger_safe.data.clips import path_inside

FILTER = "filterAudioToDangerousAndSafe"
NOT_UTF8 = "is not UTF-8"
ESC50 = "filename,fold,target,category,esc10,src_file,take\na.wav,1,0,dog,False,1,A\nb.wav,2,1,rain,False,2,A\n"
ROW = "a.wav,1,0,dog,False,1,A\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(b"", "is missing (found: none)", id="empty"),
        pytest.param(ESC50[: ESC50.index("a.wav")].encode(), "no sounds", id="header_only"),
        pytest.param(ESC50.replace(",", ";").encode(), "is missing", id="semicolons"),
        pytest.param(ESC50.replace("dog", '"dog').encode(), "a quote is never closed", id="unbalanced_quote"),
        pytest.param(ESC50.encode("utf-16"), NOT_UTF8, id="utf16"),
        pytest.param(ESC50.replace("dog", "d\xf4g").encode("latin-1"), NOT_UTF8, id="latin1"),
        pytest.param(bytes(1_000), "is missing", id="zeros"),
        pytest.param(ESC50.replace("category", "kind").encode(), "column category is missing", id="missing_column"),
        pytest.param(ESC50.replace("target", "fold").encode(), "column fold is there 2 times", id="repeated_column"),
        pytest.param((ESC50 + ROW).encode(), "a.wav is listed twice", id="repeated_row"),
        pytest.param((ESC50 + ROW.replace("dog", "rain")).encode(), "a.wav is listed twice", id="two_labels"),
        pytest.param((ESC50 + "c.wav,1\n").encode(), "line 4: too few columns", id="short_row"),
        pytest.param(ESC50.replace(",A\n", ",A,x\n").encode(), "line 2: too many columns", id="long_row"),
        pytest.param(ESC50.replace("wav,1", "wav,-1").encode(), "fold '-1'", id="negative_fold"),
        pytest.param(ESC50.replace("wav,1", "wav,1.5").encode(), "fold '1.5'", id="half_a_fold"),
        pytest.param(ESC50.replace("wav,1", "wav," + "9" * 20).encode(), "fold '9999", id="huge_fold"),
        pytest.param(ESC50.replace("dog", "d" * 200_000).encode(), "field larger", id="huge_field"),
        pytest.param(ESC50.replace("a.wav", "../audio/a.wav").encode(), "would leave", id="parent"),
        pytest.param(ESC50.replace("a.wav", "/etc/passwd").encode(), "would leave", id="absolute"),
        pytest.param(ESC50.replace("a.wav", "C:a.wav").encode(), "would leave", id="drive"),
        pytest.param(ESC50.replace("a.wav", "a\0.wav").encode(), "would leave", id="nul"),
        pytest.param(ESC50.replace("a.wav", "x" * 300 + ".wav").encode(), "", id="name_too_long"),
    ],
)
def test_bad_esc50_tables_are_explained(refused, tmp_path, content, words):
    folder = write_esc50(tmp_path / "esc", [("dog", 1, 1), ("rain", 2, 2)])
    (folder / "meta" / "esc50.csv").write_bytes(content)
    (tmp_path / "c.toml").write_text('Danger = ["dog"]\nSafe = ["rain"]\n')
    refused(FILTER, "--esc50", folder, "--categories", "c.toml", "--output", "out", words=words)


@pytest.mark.parametrize("ends", ["\r\n", "\r", "\n\n"], ids=["crlf", "cr", "blank_lines"])
def test_line_endings_and_a_byte_order_mark_are_accepted(tmp_path, ends):
    folder = write_esc50(tmp_path / "esc", [("dog", 1, 1), ("rain", 2, 2)])
    table = folder / "meta" / "esc50.csv"
    table.write_bytes(b"\xef\xbb\xbf" + table.read_text().replace("\n", ends).encode())
    (tmp_path / "c.toml").write_bytes(b'\xef\xbb\xbfDanger = ["dog"]\r\nSafe = ["rain"]\r\n')
    run_in_process(FILTER, "--esc50", folder, "--categories", tmp_path / "c.toml", "--output", tmp_path / "out")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(b"Danger: [dog]", "not TOML", id="yaml"),
        pytest.param(b"", "must be a list", id="empty"),
        pytest.param(b"Danger = [1]\nSafe = [2]", "must be a list", id="numbers"),
        pytest.param(b'danger = ["dog"]\nSafe = ["rain"]', "unknown name danger", id="misspelt"),
        pytest.param(b'Danger = ["dog"]\nSafe = []', "Safe must be a list", id="empty_list"),
        pytest.param(b'Danger = ["dog"]\nSafe = ["dog"]', "in both lists", id="both"),
        pytest.param('Danger = ["dog"]'.encode("utf-16"), "not TOML", id="utf16"),
        pytest.param(bytes(range(256)), "not TOML", id="binary"),
        pytest.param(b"a = " + b"[" * 20_000, "not TOML", id="nested"),
        pytest.param(b"#" * 2_000_000, "too large", id="huge"),
        pytest.param(b"a" + b".a" * 30_000 + b" = 1", "too large", id="dotted"),
        pytest.param(None, "no file", id="folder"),
    ],
)
def test_bad_mappings_are_explained(refused, tmp_path, content, words):
    folder = write_esc50(tmp_path / "esc", [("dog", 1, 1), ("rain", 2, 2)])
    path = tmp_path / "c.toml"
    path.mkdir() if content is None else path.write_bytes(content)
    refused(FILTER, "--esc50", folder, "--categories", path, "--output", "out", words=words)


def test_both_unicode_forms_of_accents_are_accepted(tmp_path):
    """macOS uses separate combining characters; outputs are named as in the table."""
    folder = write_esc50(tmp_path / "esc", [(unicodedata.normalize("NFD", "còi"), 1, 1), ("rain", 2, 2)])
    (tmp_path / "c.toml").write_text('Danger = ["còi"]\nSafe = ["rain"]\n', encoding="utf-8")
    run_in_process(FILTER, "--esc50", folder, "--categories", tmp_path / "c.toml", "--output", tmp_path / "out")


@pytest.mark.skipif(os.name != "posix", reason="pipes of POSIX")
def test_mapping_that_is_a_pipe_or_a_device_is_refused(refused, tmp_path):
    folder = write_esc50(tmp_path / "esc", [("dog", 1, 1), ("rain", 2, 2)])
    os.mkfifo(tmp_path / "pipe.toml")
    for path in ("pipe.toml", "/dev/zero"):
        refused(FILTER, "--esc50", folder, "--categories", path, "--output", "out", words="no file")


@pytest.mark.parametrize("flags", [(), ("--copy",)], ids=["links", "copies"])
def test_unusual_file_names_are_placed_and_kept(tmp_path, flags):
    """With names that POSIX allows; on Windows, those that it allows."""
    names = ["a, b.wav", "còi.wav", "🔥.wav", "12-30.wav"]
    if os.name == "posix":
        names += ["new\nline.wav", "car\rriage.wav", 'quote".wav', "x" * 251 + ".wav", "12:30.wav"]
    folder = write_esc50(tmp_path / "esc", [("dog", 1, 1), ("rain", 2, 2)])
    with open(folder / "meta" / "esc50.csv", "a", newline="", encoding="utf-8") as file:
        for number, name in enumerate(names):
            csv.writer(file).writerow([name, 1, 0, "dog", False, number + 10, "A"])
            (folder / "audio" / name).write_bytes(encoded(noise(seed=number)))
    (tmp_path / "c.toml").write_text('Danger = ["dog"]\nSafe = ["rain"]\n')
    command = [FILTER, "--esc50", folder, "--categories", tmp_path / "c.toml", "--output", tmp_path / "out", *flags]
    assert f"{len(names) + 2} clips placed" in run_in_process(*command).stdout
    assert {p.name for p in (tmp_path / "out" / "Danger").iterdir()} >= set(names)
    assert "0 clips placed" in run_in_process(*command).stdout


@pytest.mark.parametrize(
    ("name", "here", "on_windows"),
    [
        ("aux.wav", True, False), ("CON", True, False), ("com1.flac", True, False), ("nul", True, False),
        ("a/con.txt/b.wav", True, False),
        ("trailing.", True, False), ("trailing ", True, False), ("what?.wav", True, False), ("a|b.wav", True, False),
        ("12:30.wav", True, False), ("new\nline.wav", True, False), ("c:evil.wav", False, False),
        ("\\\\host\\share\\x.wav", False, False),
        ("..\\evil.wav", False, False), ("console.wav", True, True), ("ổ.wav", True, True), ("a/b.wav", True, True),
    ],
)  # fmt: skip
def test_names_that_windows_forbids_are_refused_there(tmp_path, name, here, on_windows):
    for windows, allowed in ((False, here), (True, on_windows)):
        if allowed:
            path_inside(tmp_path, name, windows)
        else:
            with pytest.raises(UserError):
                path_inside(tmp_path, name, windows)
