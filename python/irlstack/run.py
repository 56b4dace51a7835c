"""[`Run`][irlstack.run.Run]: a measurement that hands over its rows as they come."""

import asyncio
import json
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from os import PathLike
from types import TracebackType
from typing import Any, Literal, Self

from irlstack._core import Batch, Plan, RawList, RawOutputs, RawRun, record_run
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
    """How a recorded run ended: its metadata, what ended it early, and whether it was interrupted or lost something."""

    summary: dict[str, Any]
    error: Exception | None
    interrupted: bool
    lost: bool


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
        start: Callable[[], RawRun],
        *,
        family: Literal["ipv4", "ipv6"],
        output_fields: Sequence[str] | None,
        about: About,
        of: Literal["scan", "exchange"] = "scan",
        listed: Callable[[], RawList] | None = None,
        plan: Plan | None = None,
    ) -> None:
        self._start = start
        self._plan = plan
        self._family = family
        self._output_fields = output_fields
        self._of = of
        self._listed = listed
        self.about = about
        self._raw: RawRun | None = None
        self._summary: dict[str, Any] | None = None
        self._lock = threading.Lock()

    def _begun(self) -> RawRun:
        with self._lock:
            if self._raw is None:
                self._raw = self._start()
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
        state = "sending" if stats["sending"] else "done" if self._raw.is_finished() else "receiving"
        return f"<Run, {state}: {stats['probes_sent']:,} sent, {stats['found']:,} found>"

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
    def rate(self) -> float | None:
        """Probes a second, assign to change it; 0 = as fast as our own loss allows. None before the start."""
        return None if self._raw is None else self.stats["rate"]

    @rate.setter
    def rate(self, per_second: float) -> None:
        if not 0 <= per_second < float("inf"):
            raise ConfigError(f"A rate of {per_second} is not possible: give probes a second, or 0.")
        self._begun().set_rate(float(per_second))

    def stop(self) -> None:
        """Stop at once: no frame leaves after this returns. Rows collected until then can still be read."""
        with self._lock:
            if self._raw is not None:
                self._raw.stop()

    def write(
        self, *paths: str | PathLike[str], header: bool = True, output_module: str | None = None
    ) -> dict[str, Any]:
        """Read the run to its end into files, and return its summary.

        Args:
            paths: the suffix says how: .parquet (parts that are joined at the end), .csv, .jsonl; "-" is stdout.
            header: whether CSV begins with the names of the columns.
            output_module: csv, json (an object a line) or parquet, whatever the suffixes are.

        Raises:
            OSError: a file cannot be opened; nothing was sent then.
            KeyboardInterrupt: Ctrl-C; the rows until then are in the files.
        """
        outcome = self.record(paths, header=header, output_module=output_module)
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
    ) -> Outcome:
        """The same for programs that want to know how it ended: errors after the start are in the outcome.

        Args:
            paths: see `write`.
            header: see `write`.
            output_module: see `write`.
            each_second: called with ZMap's status line and with the row of its status-updates file.
        """
        listed = None if self._listed is None else self._listed()
        outputs = RawOutputs(
            paths, self._family, self._output_fields, header, output_module, self._of, listed, self._plan
        )
        summary, error, interrupted, lost = record_run(self._begun(), outputs, self.about, each_second)
        self._summary = json.loads(summary)
        return Outcome(self._summary, error, interrupted, lost)


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
