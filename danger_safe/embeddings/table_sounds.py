"""Find the sounds and the checkpoint that a table was made of, for steps that read them again."""

from pathlib import Path, PureWindowsPath

from danger_safe.core.commands import command_line
from danger_safe.core.errors import UserError
from danger_safe.core.paths import PathOrUrl, exists, is_url, parse_path
from danger_safe.data.clips import find_on_disk, path_inside, read_clips, read_csv_rows
from danger_safe.embeddings.table import EmbeddingTable
from danger_safe.embeddings.table_writer import side_file
from models.checkpoint_files import local_checkpoint_path, verified_sha256


def find_sounds(table: EmbeddingTable, given: PathOrUrl | None = None) -> list[PathOrUrl]:
    """Return the sound file of each row of a table.

    They are looked for in ``given`` or, by default, in the dataset that the table's .json names, relative to the
    working folder or to the table's. Raises UserError that says what to do if the first sound is in neither.
    """
    recorded = table.info.get("made_of", {}).get("dataset")
    if given is None and not recorded:
        raise UserError(f"{table.path} does not say where its sounds are: give --dataset")
    if given is None and _is_remote(recorded):
        raise UserError(f"{table.path} says that its sounds are at {recorded}: give --dataset {recorded} to go there")
    folder = given if given is not None else parse_path(recorded)
    folders = [folder] if is_url(folder) else [folder, table.path.parent / folder]
    for folder in folders:
        sounds = [find_on_disk(path_inside(folder, file)) for file in table.clips["file"]]
        if exists(sounds[0]):
            return sounds
    raise UserError(f"{folders[0]}: {table.clips['file'].iloc[0]} is not there; give --dataset, the folder of step 1")


def check_same_network(table: EmbeddingTable, checkpoint: str) -> None:
    """Raise UserError if ``checkpoint`` is no longer the network that the table was made with."""
    path = local_checkpoint_path(checkpoint)
    if verified_sha256(checkpoint, path) != table.checkpoint["sha256"]:
        raise UserError(f"{path} is another network than the one that {table.path} was made with: extract it again")


def table_checkpoint(table: EmbeddingTable) -> str:
    """Return the checkpoint that the table was made with: a name, or the path of a file.

    A relative path is looked up from the working folder, then from the table's. Raises UserError if it is not recorded.
    """
    recorded = table.info.get("made_of", {}).get("checkpoint")
    if not recorded:
        raise UserError(f"{table.path} does not say which checkpoint it was made with: extract it again")
    if _is_remote(recorded):
        raise UserError(f"{table.path} names a checkpoint elsewhere, {recorded}: extract it again")
    beside_table = table.path.parent / recorded
    return str(beside_table) if not exists(Path(recorded)) and exists(beside_table) else recorded


def manifest_warnings(table: EmbeddingTable) -> list[str]:
    """Compare the table with its dataset's manifest.csv, if that is on this computer; warn of clips that it lacks.

    Raises UserError if clips have been relabelled or removed since: a model would be trained on outdated labels.
    """
    recorded = table.info.get("made_of", {}).get("dataset")
    if not recorded or _is_remote(recorded):
        return []
    folder = Path(recorded)
    folders = [folder, table.path.parent / folder]
    folder = next((folder for folder in folders if (folder / "manifest.csv").is_file()), None)
    if folder is None:
        return []
    manifest = folder / "manifest.csv"
    try:
        current = {clip.file: (clip.label, clip.category) for clip in read_clips(folder)}
    except UserError as error:
        return [f"{table.path} could not be compared with its manifest: {error}"]
    rows = table.clips[["file", "label", "category"]].itertuples(index=False)
    embedded = {file: (label, category) for file, label, category in rows}
    removed = [file for file in embedded if file not in current]
    changed = [file for file, labels in embedded.items() if file in current and labels != current[file]]
    if removed or changed:
        raise UserError(
            f"{table.path} is older than {manifest}: {len(changed)} of its clips have another label or category there, "
            f"and {len(removed)} are gone. Run {command_line('extract')} again; only what is new takes time"
        )
    failures = side_file(table.path, "_failures.csv")
    unreadable = {row["file"] for row in read_csv_rows(failures, ("file",))} if failures.is_file() else set()
    if missing := current.keys() - embedded.keys() - unreadable:
        return [
            f"{manifest} has {len(missing)} clips that {table.path} has not: it is older, or rows were removed. "
            f"{command_line('extract')} adds them"
        ]
    return []


def _is_remote(recorded: str) -> bool:
    """Whether a recorded path is on another computer: a URL or a Windows share."""
    return is_url(recorded) or PureWindowsPath(recorded).drive.startswith("\\\\")
