"""Checkpoints: what is written of a scan while it goes on, and going on with it after whatever ended it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from irlstack._core import SCHEMA_VERSION, Plan, RawCheckpoint, World, __version__
from irlstack.errors import ConfigError

MOST_REPEATED_S = 60.0
"""What a crash costs at most: probes of so many seconds are sent again."""
_EVERY_TEXT_S = 10.0
_LEAST_PART_S = 10.0

FIXED = frozenset(
    {
        "shard",
        "reprobe",
        "recheck",
        "max_results",
        "output_fields",
        "output_filter",
        "no_rst",
        "rows",
        "dedup_method",
        "world",
        "impairment",
    }
)
"""What a run keeps to its end: with other answers to these its rows would not be of one run."""


@dataclass(frozen=True)
class Recipe:
    """How a scan was asked for, so that it can be asked for again: its plan, and keywords that JSON has a form for."""

    plan: Plan
    keywords: Mapping[str, Any]
    link: Mapping[str, Any]


def interval(paths: Sequence[str | PathLike[str]], output_module: str | None, cooldown_s: float) -> float:
    """Seconds between two commits.

    Text can be cut back to anywhere. A commit closes a part of a Parquet file, and parts are better large: the interval
    and the time that answers have come to a minute together.
    """
    parts = output_module == "parquet" or (
        output_module is None and any(Path(path).suffix == ".parquet" for path in paths)
    )
    return max(MOST_REPEATED_S - 1 - cooldown_s, _LEAST_PART_S) if parts else _EVERY_TEXT_S


def create(
    path: str | PathLike[str],
    recipe: Recipe | None,
    outputs: Sequence[str | PathLike[str]],
    record: Mapping[str, Any],
    about: Mapping[str, Any],
    every: float,
) -> RawCheckpoint:
    """A new checkpoint file for a scan with these outputs; `record` and `about` are kept with it.

    Raises:
        ConfigError: the run, or an output, is of a kind that cannot be gone on with.
        OSError: the file cannot be written.
    """
    if recipe is None:
        raise ConfigError(
            "Only a scan by irlstack.scan that sends has checkpoints: no exchange, and no scan of an open Stack."
        )
    if not outputs or any(str(each) == "-" for each in outputs):
        raise ConfigError("What goes to standard output cannot be cut back to a checkpoint: name files (-o).")
    keywords = dict(recipe.keywords)
    header = {
        "irlstack": __version__,
        "schema_version": SCHEMA_VERSION,
        "outputs": [_beside(Path(path), Path(each)) for each in outputs],
        "record": record,
        "about": about,
        "link": recipe.link,
        "keywords": keywords,
    }
    return RawCheckpoint(path, recipe.plan, keywords.get("shard", 0), json.dumps(header), every)


def _beside(checkpoint: Path, output: Path) -> str:
    """How an output is found again: by its name where it lies beside the checkpoint, so that both may be moved."""
    place = output.absolute()
    return output.name if place.parent == checkpoint.absolute().parent else str(place)


@dataclass(frozen=True)
class Saved:
    """A checkpoint that was read: how the scan was asked for, and where its rows are."""

    raw: RawCheckpoint
    path: Path
    plan: Plan
    header: dict[str, Any]

    @classmethod
    def load(cls, path: str | PathLike[str], every: float | None = None) -> "Saved":
        """Reads one.

        Raises:
            ConfigError: it is none, of another version, of a run that is done, or its plan cannot be read again.
            OSError: it cannot be read.
        """
        path = Path(path)
        header = json.loads(RawCheckpoint.load(path, 0).header())
        if header.get("schema_version") != SCHEMA_VERSION:
            raise ConfigError(
                f"{path} is of rows in version {header.get('schema_version')} of their columns, and this program "
                f"writes version {SCHEMA_VERSION}: go on with irlstack {header.get('irlstack')}."
            )
        if every is None:
            cooldown = header["keywords"].get("cooldown_time", 8.0)
            every = interval(header["outputs"], header["record"].get("output_module"), cooldown)
        raw = RawCheckpoint.load(path, every)
        return cls(raw, path, raw.plan(), header)

    @property
    def outputs(self) -> list[Path]:
        """The files that rows go to: beside the checkpoint, or where they were."""
        found = []
        for each in map(Path, self.header["outputs"]):
            beside = self.path.parent / each.name
            there = [place for place in (each, beside) if _is_there(place)]
            found.append(beside if not each.is_absolute() or not there else there[0])
        return found

    @property
    def world(self) -> World | None:
        """The simulated Internet, if the scan was of one that was given."""
        given = self.header["link"].get("world")
        return None if given is None else World(given["seed"], everything_open=given["everything_open"])


def _is_there(output: Path) -> bool:
    return output.exists() or output.with_name(output.name + ".parts").exists()


def describe_world(world: World) -> dict[str, Any]:
    """A World as JSON."""
    make = world.__reduce__()[0]
    return {"seed": world.seed, **make.keywords}


def describe_about(about: Any) -> dict[str, Any]:
    """What only the caller knew of the run; the call itself is each session's own."""
    return {name: value for name, value in asdict(about).items() if name != "argv"}
