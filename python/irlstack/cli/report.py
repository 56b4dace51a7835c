"""`irlstack report` and `irlstack methods`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from irlstack import report as reporting
from irlstack.cli import console
from irlstack.cli.status import ExitStatus
from irlstack.report import flagging, recorded
from irlstack.report import methods as paragraph


def report(
    run: Path,
    rows: Path | None = None,
    /,
    *,
    output_file: Annotated[Path | None, Parameter(alias="-o")] = None,
    prefix: str | None = None,
) -> ExitStatus:
    """Show a run as one HTML page that needs nothing else: counts, hit rate, losses, round trips, a map of answers.

    Args:
        run: A Parquet file of rows, or what --metadata-file wrote.
        rows: The rows, beside a metadata file: .parquet, .csv, .jsonl, or the folder of parts of a run that broke off.
        output_file: Where the page goes. Default: the name of RUN with .html.
        prefix: Begin the map with this prefix, such as 10.0.0.0/8. Lengths are divisible by 8.
    """
    path = output_file or run.with_suffix(".html")
    reporting.write(run, path, rows=rows, prefix=prefix)
    console.say(f"report       {path}")
    return ExitStatus.DONE


def methods(run: Path, /) -> ExitStatus:
    """Print what a paper has to say of a run: a paragraph, what is not known, and BibTeX.

    Args:
        run: A Parquet file of rows, or what --metadata-file wrote.
    """
    loaded = recorded.load(run)
    # What rows tell needs the extra, which reading a Parquet file does in any case.
    found = None if loaded.rows is None else flagging.find(loaded)
    console.put(paragraph.methods(loaded.document, found))
    return ExitStatus.DONE
