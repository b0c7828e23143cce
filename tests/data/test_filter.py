"""Step 1 through its script: mapping, files that are placed and removed, bad tables, sample sounds."""

import csv
import hashlib
import os

import pytest
import soundfile
from helpers import ROOT, SHARED, needs_shared, run, run_in_process, write_esc50

from danger_safe.data import synthetic

SCRIPT = "filterAudioToDangerousAndSafe.py"
CLIPS = [("dog", 1, 11), ("siren", 2, 12), ("rain", 1, 13), ("wind", 2, 14), ("cat", 3, 15)]


@pytest.fixture
def esc50(tmp_path):
    return write_esc50(tmp_path / "esc", CLIPS)


def mapping(tmp_path, danger, safe):
    path = tmp_path / "categories.toml"
    path.write_text(f"Danger = {danger!r}\nSafe = {safe!r}\n".replace("'", '"'))
    return path


def placed(folder):
    return sorted(f"{p.parent.name}/{p.name}" for name in ("Danger", "Safe") for p in (folder / name).glob("*"))


def filtered(tmp_path, esc50, *flags, danger=("dog", "siren"), safe=("rain", "wind"), status=0):
    categories = mapping(tmp_path, list(danger), list(safe))
    flags = ("--esc50", esc50, "--categories", categories, "--output", tmp_path / "out", *flags)
    return run_in_process(SCRIPT, *flags, status=status)


@pytest.mark.parametrize("flags", [[], ["--copy"]])
def test_second_run_changes_nothing_and_a_new_mapping_removes_only_its_clips(tmp_path, esc50, flags):
    out = tmp_path / "out"
    first = filtered(tmp_path, esc50, *flags)
    assert "4 clips placed" in first.stdout
    manifest = (out / "manifest.csv").read_bytes()
    assert "0 clips placed, 4 already there, 0 removed" in filtered(tmp_path, esc50, *flags).stdout
    assert (out / "manifest.csv").read_bytes() == manifest
    (out / "Danger" / "mine.wav").write_text("the user's own")
    filtered(tmp_path, esc50, *flags, danger=["dog"], safe=["rain", "cat"])
    assert placed(out) == ["Danger/1-11-A-0.wav", "Danger/mine.wav", "Safe/1-13-A-2.wav", "Safe/3-15-A-4.wav"]
    assert (out / "Danger" / "mine.wav").read_text() == "the user's own"


def test_copies_equal_the_clips_and_replace_links(tmp_path, esc50):
    filtered(tmp_path, esc50)
    filtered(tmp_path, esc50, "--copy")
    clip = tmp_path / "out" / "Danger" / "1-11-A-0.wav"
    assert not clip.is_symlink()
    assert clip.read_bytes() == (esc50 / "audio" / clip.name).read_bytes()


def test_interrupted_copying_is_completed(tmp_path, esc50):
    filtered(tmp_path, esc50, "--copy")
    out = tmp_path / "out"
    clip = out / "Safe" / "1-13-A-2.wav"
    clip.unlink()
    (out / "manifest.csv").unlink()
    assert "1 clips placed, 3 already there" in filtered(tmp_path, esc50, "--copy").stdout
    assert clip.read_bytes() == (esc50 / "audio" / clip.name).read_bytes()


def test_existing_file_of_a_user_is_not_overwritten(tmp_path, esc50):
    target = tmp_path / "out" / "Danger" / "1-11-A-0.wav"
    target.parent.mkdir(parents=True)
    target.write_text("the user's own")
    assert "not placed by this script" in filtered(tmp_path, esc50, status=1).stderr
    assert target.read_text() == "the user's own"


def test_user_s_clip_is_kept_even_if_it_is_in_the_manifest(tmp_path, esc50):
    filtered(tmp_path, esc50)
    own = tmp_path / "out" / "Danger" / "mine.wav"
    own.write_text("the user's own")
    with open(tmp_path / "out" / "manifest.csv", "a") as file:
        file.write("Danger/mine.wav,1,dog,0,mine\n")
    assert "0 removed" in filtered(tmp_path, esc50).stdout
    assert own.read_text() == "the user's own"
    assert "Danger/mine.wav,1,dog,0,mine" in (tmp_path / "out" / "manifest.csv").read_text()


def test_edited_copies_are_kept(tmp_path, esc50):
    filtered(tmp_path, esc50, "--copy")
    edited = [tmp_path / "out" / name for name in ("Danger/1-11-A-0.wav", "Safe/1-13-A-2.wav")]
    for clip in edited:
        clip.write_text("edited")
    for _ in range(2):
        done = filtered(tmp_path, esc50, "--copy", safe=["cat"])
        assert [clip.read_text() for clip in edited] == ["edited"] * 2
        assert f"{edited[0]} was changed since it was placed, and is used as it is now" in done.stderr
        assert f"{edited[1]} was changed since it was placed, and was left there" in done.stderr
    assert placed(tmp_path / "out") == [
        "Danger/1-11-A-0.wav",
        "Danger/2-12-A-1.wav",
        "Safe/1-13-A-2.wav",
        "Safe/3-15-A-4.wav",
    ]


@pytest.mark.skipif(os.name == "nt", reason="links need a right there")
def test_untrusted_record_of_placed_files_removes_nothing_outside(tmp_path, esc50):
    """The .placed.txt of a downloaded dataset names files behind a link."""
    (tmp_path / "home").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("the user's own")
    (tmp_path / "out" / "Danger").symlink_to(tmp_path / "home")
    (tmp_path / "out" / ".placed.txt").write_text("Danger/letter.txt\n")
    assert "leads elsewhere" in filtered(tmp_path, esc50, status=1).stderr
    (tmp_path / "out" / "Danger").rename(tmp_path / "out" / "x")
    (tmp_path / "out" / ".placed.txt").write_text("x/Danger/letter.txt\n")
    assert "is not in Danger/ or Safe/" in filtered(tmp_path, esc50, status=1).stderr
    (tmp_path / "out" / ".placed.txt").unlink()
    (tmp_path / "out" / "manifest.csv").write_text("the user's own")
    assert "was not written by this script" in filtered(tmp_path, esc50, status=1).stderr
    assert (tmp_path / "home" / "letter.txt").read_text() == (tmp_path / "out" / "manifest.csv").read_text()


def test_named_esc50_is_not_downloaded_and_archives_are_kept(tmp_path, esc50, offline):
    archive = tmp_path / "ESC.zip"
    archive.write_text("the user's own")
    done = filtered(tmp_path, tmp_path / "ESC", status=1)
    assert "is not there. Give the folder" in done.stderr
    assert f"give --esc50 {esc50}" in filtered(tmp_path, tmp_path, status=1).stderr
    flags = ("--categories", mapping(tmp_path, ["dog"], ["rain"]), "--output", tmp_path / "out")
    own = tmp_path / "dataset" / "ESC-50-master.download"
    own.mkdir(parents=True)
    (own / "ESC-50.zip").write_text("the user's own")
    done = run(SCRIPT, *flags, cwd=tmp_path, env=offline, status=1)
    assert f"{own.relative_to(tmp_path)} is there and was not made by this project" in done.stderr
    assert archive.read_text() == (own / "ESC-50.zip").read_text() == "the user's own"
    done = run(SCRIPT, "--esc50", esc50, "--output", "here", cwd=tmp_path, status=1)
    assert f"{ROOT / 'dataset' / 'categories.toml'}: unknown category" in done.stderr  # the project's mapping


def test_sample_sounds_are_not_written_into_a_user_s_folder(tmp_path):
    (tmp_path / "sample-sounds").mkdir()
    (tmp_path / "sample-sounds" / "a.txt").write_text("the user's own")
    assert "was not made by this project" in run_in_process(SCRIPT, "--sample", "--output", tmp_path, status=1).stderr


def test_missing_clip_is_listed_and_the_others_are_placed(tmp_path, esc50):
    (esc50 / "audio" / "1-11-A-0.wav").unlink()
    done = filtered(tmp_path, esc50, status=3)
    assert "1-11-A-0.wav" in done.stderr
    assert len(placed(tmp_path / "out")) == 3


@pytest.mark.parametrize(
    ("danger", "safe", "words"),
    [
        (["dgo"], ["rain"], "Did you mean dog"),
        (["gun_shot"], ["rain"], "unknown category 'gun_shot'"),
        (["dog"], ["rain", "dog"], "in both lists"),
        (["dog", "dog"], ["rain"], "twice in Danger"),
        ([], ["rain"], "Danger must be a list"),
    ],
)
def test_bad_mapping_is_explained(tmp_path, esc50, danger, safe, words):
    assert words in filtered(tmp_path, esc50, danger=danger, safe=safe, status=1).stderr
    assert not (tmp_path / "out" / "manifest.csv").exists()


@pytest.mark.parametrize("name", ["../evil.wav", "/evil.wav", "C:\\evil.wav", "..\\evil.wav"])
def test_file_names_that_leave_the_folder_are_refused(tmp_path, esc50, name):
    table = esc50 / "meta" / "esc50.csv"
    table.write_text(table.read_text().replace("1-11-A-0.wav", name))
    assert "would leave" in filtered(tmp_path, esc50, status=1).stderr


def test_missing_column_is_named(tmp_path, esc50):
    table = esc50 / "meta" / "esc50.csv"
    table.write_text(table.read_text().replace("category", "kind"))
    assert "column category is missing" in filtered(tmp_path, esc50, status=1).stderr


def test_table_with_bom_and_crlf_is_read(tmp_path, esc50):
    table = esc50 / "meta" / "esc50.csv"
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes().replace(b"\n", b"\r\n"))
    filtered(tmp_path, esc50)


def test_sample_sounds_are_reproducible_and_have_esc50_s_layout(sample, tmp_path, monkeypatch):
    made = sample / "sample-sounds"
    rows = list(csv.DictReader((made / "meta" / "esc50.csv").read_text().splitlines()))
    assert len(rows) == 180
    assert len({row["category"] for row in rows}) == 9
    assert {row["fold"] for row in rows} == set("12345")
    assert len({row["src_file"] for row in rows}) == 90
    monkeypatch.setattr(synthetic, "CLIPS_PER_CATEGORY", 2)  # the first of twenty, in another process
    synthetic.make_samples(tmp_path / "again")
    again = sorted((tmp_path / "again" / "audio").iterdir())
    assert len(again) == 18
    for other in again:
        one = made / "audio" / other.name
        assert hashlib.sha256(one.read_bytes()).digest() == hashlib.sha256(other.read_bytes()).digest()
        info = soundfile.info(one)
        assert (info.samplerate, info.frames, info.channels) == (44_100, 220_500, 1)


@needs_shared
def test_default_mapping_on_real_clips(tmp_path):
    """With ESC-50's table and empty files: step 1 does not open the clips."""
    with open(SHARED / "esc50" / "clips.csv", newline="") as table:
        rows = list(csv.DictReader(table))
    esc50 = write_esc50(tmp_path / "esc", [])
    with open(esc50 / "meta" / "esc50.csv", "w", newline="") as table:
        writer = csv.DictWriter(table, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        (esc50 / "audio" / row["filename"]).touch()
    done = run_in_process(SCRIPT, "--esc50", esc50, "--output", tmp_path / "out")
    totals = [line.split() for line in done.stdout.splitlines() if " total " in line]
    assert totals == [["Safe", "total", "160"], ["Danger", "total", "128"]]  # 4/5 of ESC-50's 200 and 160
