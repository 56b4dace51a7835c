"""What a run left behind: its metadata document, and where its rows are."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irlstack.errors import ConfigError
from irlstack.report.extra import need

_PARQUET_MAGIC = b"PAR1"


@dataclass(frozen=True)
class Recorded:
    """A run that was recorded.

    Attributes:
        document: its metadata.
        rows: the file of its rows, or the folder of their parts; None where only the metadata is known.
        where: the file that the metadata came from.
    """

    document: dict[str, Any]
    rows: Path | None
    where: Path


def load(run: Path, rows: Path | None = None) -> Recorded:
    """Finds the metadata of a run.

    Args:
        run: what `--metadata-file` wrote, or a Parquet file of rows, which has the same document inside.
        rows: the file of the rows: .parquet, .csv or .jsonl, or the folder NAME.parquet.parts of a run that did not
            end; not needed beside a Parquet file.

    Raises:
        ConfigError: there is no metadata in it.
        OSError: a file cannot be read.
    """
    if rows is not None and not rows.is_dir():
        rows.open("rb").close()
    with run.open("rb") as file:
        parquet = file.read(len(_PARQUET_MAGIC)) == _PARQUET_MAGIC
    if not parquet:
        return Recorded(read_document(run), rows, run)
    inside = (need("pyarrow.parquet").read_metadata(run).metadata or {}).get(b"irlstack.metadata")
    if inside is None:
        raise ConfigError(f"{run} has no metadata inside: name the file that --metadata-file wrote, and then {run}.")
    return Recorded(_checked(run, inside.decode()), rows or run, run)


def read_document(path: Path) -> dict[str, Any]:
    """The metadata document in a file, as `--metadata-file` wrote it.

    Raises:
        ConfigError: it is something else.
        OSError: it cannot be read.
    """
    try:
        return _checked(path, path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not the metadata of a run.") from error


def _checked(path: Path, text: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{path} is not the metadata of a run.") from error
    if not isinstance(document, dict) or "plan_fingerprint" not in document or "stats" not in document:
        raise ConfigError(f"{path} is not the metadata of a run.")
    return document
