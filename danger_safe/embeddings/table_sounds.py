"""The sounds that a table's embeddings were made of, for steps that listen to them again: false alarms, mistakes."""

from pathlib import Path, PureWindowsPath

from danger_safe.core.errors import UserError
from danger_safe.core.paths import PathOrUrl, exists, is_url, parse_path
from danger_safe.data.clips import find_on_disk, path_inside, read_clips
from danger_safe.data.clips import read_table as read_rows
from danger_safe.embeddings.table import EmbeddingTable
from danger_safe.embeddings.table_writer import side_file
from models.checkpoint_files import local_checkpoint_path, verified_sha256


def find_sounds(table: EmbeddingTable, given: PathOrUrl | None = None) -> list[PathOrUrl]:
    """The sound file of each of the table's rows, in their order.

    They are looked for in ``given``, or in the --dataset that the table's .json names: as it was given there, or from
    the table's own folder. Raises UserError that says what to do where the first sound is in neither.
    """
    named = table.info.get("made_of", {}).get("dataset")
    if given is None and not named:
        raise UserError(f"{table.path} does not say where its sounds are: give --dataset")
    if given is None and _leads_outside(named):
        raise UserError(f"{table.path} says that its sounds are at {named}: give --dataset {named} to go there")
    folder = given if given is not None else parse_path(named)
    folders = [folder] if is_url(folder) else [folder, table.path.parent / folder]
    for folder in folders:
        sounds = [find_on_disk(path_inside(folder, file)) for file in table.clips["file"]]
        if exists(sounds[0]):
            return sounds
    raise UserError(f"{folders[0]}: {table.clips['file'].iloc[0]} is not there; give --dataset, the folder of step 1")


def check_same_network(table: EmbeddingTable, checkpoint: str) -> None:
    """Raises UserError where the table's ``checkpoint`` is another network than when the table was made."""
    path = local_checkpoint_path(checkpoint)
    if verified_sha256(checkpoint, path) != table.checkpoint["sha256"]:
        raise UserError(f"{path} is another network than the one that {table.path} was made with: extract it again")


def table_checkpoint(table: EmbeddingTable) -> str:
    """The --checkpoint that the table was made with: a name, or the path of a file. Raises UserError when unknown."""
    given = table.info.get("made_of", {}).get("checkpoint")
    if not given:
        raise UserError(f"{table.path} does not say which checkpoint it was made with: extract it again")
    if _leads_outside(given):
        raise UserError(f"{table.path} names a checkpoint elsewhere, {given}: extract it again")
    beside = table.path.parent / given
    return str(beside) if not exists(Path(given)) and exists(beside) else given


def manifest_warnings(table: EmbeddingTable) -> list[str]:
    """A warning where the table lacks clips of the manifest.csv that it was made of, where that is on this computer.

    Raises UserError where clips have another label or category by now, or are none any more: it would be trained on
    answers that nobody gives any longer.
    """
    named = table.info.get("made_of", {}).get("dataset")
    if not named or _leads_outside(named):
        return []
    folder = Path(named)
    folders = [folder, table.path.parent / folder]
    folder = next((folder for folder in folders if (folder / "manifest.csv").is_file()), None)
    if folder is None:
        return []
    manifest = folder / "manifest.csv"
    try:
        now = {clip.file: (clip.label, clip.category) for clip in read_clips(folder)}
    except UserError as error:
        return [f"{table.path} could not be compared with its manifest: {error}"]
    then = {file: answer for file, *answer in table.clips[["file", "label", "category"]].itertuples(index=False)}
    gone = [file for file in then if file not in now]
    changed = [file for file, answer in then.items() if file in now and tuple(answer) != now[file]]
    if gone or changed:
        raise UserError(
            f"{table.path} is older than {manifest}: {len(changed)} of its clips have another label or category there, "
            f"and {len(gone)} are gone. Run extractEmbeddingCnn14.py again; only what is new takes time"
        )
    failures = side_file(table.path, "_failures.csv")
    unreadable = {row["file"] for row in read_rows(failures, ("file",))} if failures.is_file() else set()
    if missing := now.keys() - then.keys() - unreadable:
        return [
            f"{manifest} has {len(missing)} clips that {table.path} has not: it is older, or rows were removed. "
            "extractEmbeddingCnn14.py adds them"
        ]
    return []


def _leads_outside(named: str) -> bool:
    """Whether what a file names is not on this computer: an address, or a folder that Windows would ask a server
    for."""
    return is_url(named) or PureWindowsPath(named).drive.startswith("\\\\")
