"""What a run looks like: an HTML page, a Hilbert map of who answered, the methods paragraph of a paper.

    irl.report.write("out.parquet", "out.html")
    irl.report.hilbert("out.parquet", "10.0.0.0/8").svg()

It needs the extra `irlstack[report]`, imported when it is used.
"""

from os import PathLike
from pathlib import Path

from irlstack.report.flagging import Flag, find, flags
from irlstack.report.hilbert import HilbertMap, Network, checked_prefix, hilbert
from irlstack.report.recorded import load
from irlstack.report.rows import RowsFile
from irlstack.report.tally import count

__all__ = ["Flag", "HilbertMap", "flags", "hilbert", "write"]


def write(
    run: str | PathLike[str],
    output_file: str | PathLike[str],
    *,
    rows: str | PathLike[str] | None = None,
    prefix: str | Network | None = None,
) -> None:
    """Writes the report of a run: one HTML page, which needs no other file and no network.

    Memory does not grow with the number of rows; 64 MiB or so are taken for counts.

    Args:
        run: a Parquet file of rows, or what `--metadata-file` wrote.
        output_file: where the page goes.
        rows: the rows, where they are not in `run`: .parquet, .csv, .jsonl, or a folder of Parquet parts. Without them
            the page has what the metadata tells.
        prefix: begin with the map of this prefix, of a length divisible by 8.

    Raises:
        ConfigError: a file is something else, a prefix cannot be shown, or a package of the extra is missing.
        OSError: a file cannot be read or written.
    """
    # Late, since the words for numbers are the command line's, which needs all of irlstack.
    from irlstack.report.page import page

    recorded = load(Path(run), None if rows is None else Path(rows))
    tally = None
    if recorded.rows is not None:
        file = RowsFile(recorded.rows, recorded.document.get("output_fields", ()))
        chosen = None if prefix is None else checked_prefix(prefix, ipv6=file.ipv6)
        tally = count(file, chosen, document=recorded.document)
    Path(output_file).write_text(page(recorded, tally, find(recorded)), encoding="utf-8")
