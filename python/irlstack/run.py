"""[`Run`][irlstack.run.Run]: a measurement that hands over its rows as they come."""

import asyncio
import json
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from irlstack import checkpoint as checkpoints
from irlstack import notebook
from irlstack._core import Batch, Plan, RawCheckpoint, RawList, RawOutputs, RawRun, record_run
from irlstack.bounds import check_files
from irlstack.errors import ConfigError

_ASYNC_WAIT_S = 0.05


@dataclass(kw_only=True)
class About:
    """What only the caller knows of a run, for its metadata; `user_metadata` is JSON text."""

    argv: list[str] = field(default_factory=lambda: list(sys.argv))
    seed_provided: bool = False
    notes: str | None = None
    user_metadata: str | None = None


@dataclass(frozen=True)
class Outcome:
    """How a recorded run ended: its metadata, what ended it early, and whether it was interrupted or lost something.

    `checkpoint` is the file by which [`resume`][irlstack.resume] goes on with it; None where nothing is left, or none
    was written.
    """

    summary: dict[str, Any]
    error: Exception | None
    interrupted: bool
    lost: bool
    checkpoint: Path | None = None


class Run:
    """A measurement in progress, or one that has not begun: the first batch asked for starts it.

        run = irl.scan("10.0.0.0/16", ports=80, engine="sim")
        for batch in run:               # Arrow batches; async for works too
            ...
        polars.DataFrame(run)           # or all rows at once, by __arrow_c_stream__

    Each iteration is an object of its own; when it ends (break, exception, close, garbage collection) frames stop
    within 100 ms. Rows nobody reads pause the sender. Ctrl-C is heard while waiting.
    """

    def __init__(
        self,
        start: Callable[[RawCheckpoint | None, Callable[[], None] | None], RawRun],
        *,
        family: Literal["ipv4", "ipv6"],
        output_fields: Sequence[str] | None,
        about: About,
        of: Literal["scan", "exchange"] = "scan",
        listed: Callable[[], RawList] | None = None,
        recipe: checkpoints.Recipe | None = None,
        saved: checkpoints.Saved | None = None,
        highest_rate: float | None = None,
        plan: Plan | None = None,
        shard: int = 0,
    ) -> None:
        self._start = start
        self._shard = shard
        self._plan = plan
        self._family = family
        self._output_fields = output_fields
        self._of = of
        self._listed = listed
        self._recipe = recipe
        self._saved = saved
        self._highest = highest_rate
        self.about = about
        self._raw: RawRun | None = None
        self._summary: dict[str, Any] | None = None
        # A signal's handler may come to it in the thread that holds it.
        self._lock = threading.RLock()

    def _begun(self, checkpoint: RawCheckpoint | None = None, ready: Callable[[], None] | None = None) -> RawRun:
        with self._lock:
            if self._raw is None:
                if self._saved is not None and checkpoint is None:
                    raise ConfigError("A scan is gone on with in its files: call write() without any.")
                self._raw = self._start(checkpoint, ready)
            elif checkpoint is not None:
                raise ConfigError("This run has begun, and a checkpoint is of all its rows: write it from the start.")
            elif ready is not None:
                ready()
            return self._raw

    def __iter__(self) -> "Rows":
        return Rows(self._begun())

    def __aiter__(self) -> AsyncIterator[Batch]:
        return _AsyncRows(self._begun())

    def __arrow_c_schema__(self) -> object:
        return self._begun().__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """All rows as an Arrow stream, pulled as they come; releasing it stops the frames."""
        return self._begun().__arrow_c_stream__(requested_schema)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        if self._raw is None:
            return "<Run, not begun>"
        stats = self.stats
        return f"<Run, {self._state()}: {stats['probes_sent']:,} sent, {stats['found']:,} found>"

    def _repr_html_(self) -> str:
        """A short table, as notebooks show it."""
        return notebook.table(self._state(), self.summary)

    def _state(self) -> str:
        if self._raw is None:
            return "not begun"
        return "sending" if self.stats["sending"] else "done" if self._raw.is_finished() else "receiving"

    @property
    def stats(self) -> dict[str, Any]:
        """The counters so far: probes_sent, found, rows, repeats, elapsed_s and more; empty before the start."""
        return {} if self._raw is None else json.loads(self._raw.stats())

    @property
    def summary(self) -> dict[str, Any]:
        """The metadata document: what ran where and how, and what came of it. Empty before the start."""
        if self._summary is not None:
            return self._summary
        return {} if self._raw is None else json.loads(self._raw.metadata(self.about))

    @property
    def id(self) -> str | None:
        """What its log and its metrics call it: 16 digits of its plan's fingerprint, and the shard."""
        return None if self._plan is None else f"{self._plan.fingerprint()[:16]}-{self._shard}"

    def snapshot(self) -> dict[str, Any]:
        """What the run is and where it is at this moment, for those who watch it from outside. Empty before the start.

        stats, and beside it finished, start_s (UTC, since the epoch), rate_now (over the last second), watermark and
        positions (of the shard), queue and queue_most (batches that wait for their reader), workers, filter, and what
        the metadata say of engine, plan and shard. Workers count on meanwhile: sums are exact when it has ended.
        """
        return {} if self._raw is None else {"run": self.id, **json.loads(self._raw.snapshot())}

    @property
    def rate(self) -> float | None:
        """Probes a second, assign to change it; 0 = as fast as our own loss allows. None before the start."""
        return None if self._raw is None else self.stats["rate"]

    @rate.setter
    def rate(self, per_second: float) -> None:
        if not 0 <= per_second < float("inf"):
            raise ConfigError(f"A rate of {per_second} is not possible: give probes a second, or 0.")
        self._begun().set_rate(float(per_second))

    def clamped_rate(self, per_second: float) -> float:
        """This rate, or the highest that the policy has a number for, where it began within that."""
        return per_second if self._highest is None else min(per_second, self._highest)

    def stop(self) -> None:
        """Stop at once: no frame leaves after this returns. Rows collected until then can still be read."""
        with self._lock:
            if self._raw is not None:
                self._raw.stop()

    def write(
        self,
        *paths: str | PathLike[str],
        header: bool = True,
        output_module: str | None = None,
        checkpoint: str | PathLike[str] | None = None,
        checkpoint_interval: float | None = None,
    ) -> dict[str, Any]:
        """Read the run to its end into files, and return its summary.

        Args:
            paths: the suffix says how: .parquet (parts that are joined at the end), .csv, .jsonl; "-" is stdout.
            header: whether CSV begins with the names of the columns.
            output_module: csv, json (an object a line) or parquet, whatever the suffixes are.
            checkpoint: a file to write down in, again and again, how far a scan is, so that `irlstack.resume` can go on
                with it after whatever ends it. It goes when nothing is left. It holds the plan's key.
            checkpoint_interval: how often, in seconds; by default so that a crash costs a minute of probes at most.

        Raises:
            OSError: a file cannot be opened; nothing was sent then.
            KeyboardInterrupt: Ctrl-C; the rows until then are in the files.
        """
        outcome = self.record(
            paths,
            header=header,
            output_module=output_module,
            checkpoint=checkpoint,
            checkpoint_interval=checkpoint_interval,
        )
        if outcome.interrupted:
            raise KeyboardInterrupt
        if outcome.error is not None:
            raise outcome.error
        return outcome.summary

    def record(
        self,
        paths: Sequence[str | PathLike[str]],
        *,
        header: bool = True,
        output_module: str | None = None,
        each_second: Callable[[str, str], object] | None = None,
        ready: Callable[[], object] | None = None,
        checkpoint: str | PathLike[str] | None = None,
        checkpoint_interval: float | None = None,
    ) -> Outcome:
        """The same for programs that want to know how it ended: errors after the start are in the outcome.

        Args:
            paths: see `write`.
            header: see `write`.
            output_module: see `write`.
            each_second: called with ZMap's status line and with the row of its status-updates file.
            ready: called when the run was accepted, before the files are opened and the first frame is sent.
            checkpoint: see `write`.
            checkpoint_interval: see `write`.
        """
        listed = None if self._listed is None else self._listed()
        kept: RawCheckpoint | None = None
        saved = self._saved
        if saved is not None:
            if paths or checkpoint is not None:
                raise ConfigError("A scan that is gone on with has its files and its checkpoint: name no others.")
            kept, checkpoint, paths = saved.raw, saved.path, saved.outputs
            header, output_module = saved.header["record"]["header"], saved.header["record"]["output_module"]
        else:
            check_files([Path(path) for path in (*paths, checkpoint) if path is not None])
        of = (paths, self._family, self._output_fields, header, output_module, self._of, listed)
        outputs = RawOutputs(*of, kept, self._plan)

        def opened() -> None:
            if ready is not None:
                ready()
            outputs.open()

        if saved is None and checkpoint is not None:
            kept = self._checkpoint(checkpoint, paths, header, output_module, checkpoint_interval)
        try:
            raw = self._begun(kept, opened)
        except BaseException:
            if kept is not None:
                kept.discard()
            raise
        summary, error, interrupted, lost, resumable = record_run(raw, outputs, self.about, each_second, kept)
        self._summary = json.loads(summary)
        left = Path(checkpoint) if resumable and checkpoint is not None else None
        return Outcome(self._summary, error, interrupted, lost, left)

    def _checkpoint(
        self,
        path: str | PathLike[str],
        outputs: Sequence[str | PathLike[str]],
        header: bool,
        output_module: str | None,
        every: float | None,
    ) -> RawCheckpoint:
        """A new checkpoint of this run."""
        record = {"header": header, "output_module": output_module}
        if every is None:
            cooldown = 8.0 if self._recipe is None else self._recipe.keywords.get("cooldown_time", 8.0)
            every = checkpoints.interval(outputs, output_module, cooldown)
        about = checkpoints.describe_about(self.about)
        return checkpoints.create(path, self._recipe, outputs, record, about, every)


class Rows(Iterator[Batch]):
    """One iteration over a run; its end of life stops the run."""

    def __init__(self, raw: RawRun) -> None:
        self._raw = raw

    def __next__(self) -> Batch:
        batch = self._raw.next_batch()
        if batch is None:
            raise StopIteration
        return batch

    def close(self) -> None:
        """Stop the run: no frame leaves after this returns."""
        self._raw.stop()

    def __del__(self) -> None:
        self._raw.stop()


class _AsyncRows:
    """The same for `async for`."""

    def __init__(self, raw: RawRun) -> None:
        self._raw = raw

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Batch:
        while True:
            # Short waits in a thread: a cancelled task must not leave a thread that takes its rows.
            done, batch = await asyncio.to_thread(self._raw.poll, _ASYNC_WAIT_S)
            if batch is not None:
                return batch
            if done:
                raise StopAsyncIteration

    def __del__(self) -> None:
        self._raw.stop()
