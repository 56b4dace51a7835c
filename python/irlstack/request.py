"""What a scan or an exchange is told, as keywords, and what becomes of them."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from ipaddress import IPv4Address, IPv6Address
from typing import Any, BinaryIO, Literal, TypedDict

from irlstack import checkpoint as checkpoints
from irlstack._core import (
    DEFAULT_RATE,
    Plan,
    Probe,
    RawCheckpoint,
    RawList,
    RawRun,
    RawStack,
    check_filter,
    refuse_early,
)
from irlstack.bounds import check_fields, check_numbers
from irlstack.errors import ConfigError
from irlstack.optout import Watch
from irlstack.policy import Policy
from irlstack.run import About, Run

Address = str | IPv4Address | IPv6Address
Path = str | os.PathLike[str]


MOST_TARGETS = (1 << 63) - 1


class PlanKeywords(TypedDict, total=False):
    """The keywords of [`Plan`][irlstack.Plan]."""

    ports: int | str | Sequence[int] | None
    top_ports: int | None
    list_of_ips_file: Path | bytes | BinaryIO | None
    allowlist_file: Sequence[Path]
    blocklist_file: Sequence[Path]
    seed: int | None
    order: str
    secret: bytes | None
    probe_module: str | Probe
    probe_args: Mapping[str, str]
    source_ip: Address | Sequence[Address]
    source_port: str | None
    probe_ttl: int | None
    probes: int | None
    rate: int | None
    max_targets: int | None
    shards: int | None
    contact: str | None


class RunKeywords(PlanKeywords, total=False):
    """What a scan and an exchange are told alike, beside their targets.

    Attributes:
        plan: a plan instead of targets and the keywords of one.
        shard: which shard of it, from 0.
        policy: who is responsible; by default what the configuration files say.
        authorized: who authorised the run, in place of the policy's.
        optout_file: who asked to be left alone, in place of the policy's file (see `irlstack.optout`).
        prefix_budget: the most probes a second to any /24 of IPv4 or /48 of IPv6, in place of the policy's.
        sender_threads: sender threads, one a core, spread over the interfaces; one for each interface when None.
        cores: numbers of the CPUs that they are bound to, in turn; the system chooses when there are none.
        reprobe: how often those that are silent are probed again: so many more passes over the targets, each to those
            that no answer of any kind (a RST and an ICMP error are answers) was received about. A pass begins 1 s after
            the one before it, or after `cooldown_time` where that is shorter; later answers still count. Needs a map
            of all targets within `max_memory`. An exchange sends its SYNs twice again unless told otherwise.
        cooldown_time: how long to listen after the last probe, in seconds.
        max_runtime: stop sending probes after so many seconds.
        max_results: stop sending probes after so many rows; there are no more of them.
        min_hitrate: stop sending when fewer than so many percent of the probes find a target, for 5 s.
        retries: how often a frame that the device refuses is offered again before that counts as a failure.
        max_sendto_failures: stop sending after more failures than this.
        output_fields: columns by name, see `irlstack schema`.
        max_memory: bytes for the map of targets that have answered, and in an exchange for its connections.
        queue: batches that may wait for their reader before the sender pauses.
        capture_sample: a pcapng file for a sample of the frames sent and of the answers: all those of a share of the
            targets (docs/capture.md). It is written when the run ends.
        capture_sample_size: the most frames of either direction in it; they are held in memory until then.
        notes: free text for the metadata.
        user_metadata: any JSON value for the metadata.
    """

    plan: Plan | None
    shard: int
    policy: Policy | None
    authorized: str | None
    optout_file: Path | None
    prefix_budget: float | None
    sender_threads: int | None
    cores: Sequence[int]
    reprobe: int
    cooldown_time: float
    max_runtime: float | None
    max_results: int | None
    min_hitrate: float
    retries: int
    max_sendto_failures: int | None
    output_fields: Sequence[str] | None
    max_memory: int
    queue: int
    capture_sample: Path | None
    capture_sample_size: int
    notes: str | None
    user_metadata: object


class ScanKeywords(RunKeywords, total=False):
    """What a scan is told beside its targets.

    Attributes:
        reprobe_wait: seconds from the end of a pass to the next; by default one, or `cooldown_time` where that is
            shorter. Losses come in bursts: passes that lie minutes apart find more than such that follow at once.
        recheck: a share of the targets, from 0 to 1, that is probed once more at the end, after the cooldown, whether
            found or not: the metadata then tell how many of either answer. Needs a map of all targets.
        recheck_rate: how fast, at most, in probes a second.
        no_rst: do not answer SYN-ACKs with a RST of ours.
        rows: "success", each target once, or "all" answers.
        output_filter: which answers become rows instead, in ZMap's words: "success = 1 && ttl > 64"; fields need not be
            among the columns (docs/outputs.md).
        dedup_method: how repeats are recognised: "full", by a map of all targets that must fit `max_memory`; "window",
            by the targets that answered last, as many as fit; "none": repeats are rows too, only marked as such;
            "default": full where it fits, otherwise window.
    """

    reprobe_wait: float | None
    recheck: float | None
    recheck_rate: float
    no_rst: bool
    rows: Literal["success", "all"]
    output_filter: str | None
    dedup_method: Literal["default", "full", "window", "none"]


class ExchangeKeywords(RunKeywords, total=False):
    """What an exchange is told beside its targets and its request.

    `list_of_ips_file` is read while the exchange goes on, as is a table (anything with `__arrow_c_stream__`) among the
    targets: Parquet or text, a target a row, whose further columns pass through to the results. The other targets then
    say where those of the list may lie.

    Attributes:
        until: when the response is complete: "close", when the peer closes; a number of bytes; or the bytes, or other
            text, that end it.
        close: how we close then: "rst", at once, or "fin".
        max_bytes: the most bytes of a response that are kept; what is longer is cut, and its row says so.
        timeout: how long a dialogue may take, in seconds from the SYN-ACK on.
        max_connections: the most connections at once, with the SYNs of the last second that may still become some.
        max_per_prefix: the same for each /24 of IPv4 or /48 of IPv6; no bound when None.
        request_column: the column of the list that has each target's request, in place of `request`.
        rows: "success", exchanges that ended as asked; "answered", a row for every target that answered, also by
            refusing; "all", those and at the end those that stayed silent.
    """

    until: str | int | bytes
    close: Literal["rst", "fin"]
    max_bytes: int
    timeout: float
    max_connections: int
    max_per_prefix: int | None
    request_column: str | None
    rows: Literal["success", "answered", "all"]


_RUN_KEYWORDS = (frozenset(ScanKeywords.__annotations__) | frozenset(ExchangeKeywords.__annotations__)) - frozenset(
    PlanKeywords.__annotations__
)
_OF_THE_POLICY = ("authorized", "optout_file", "prefix_budget")
_NOT_FOR_THE_CORE = frozenset({"plan", "policy", *_OF_THE_POLICY, "notes", "user_metadata"})


class Request:
    """A run's keywords sorted: the plan, who is responsible, and how it is run."""

    def __init__(
        self,
        targets: Sequence[object],
        keywords: Mapping[str, Any],
        base: Policy | None = None,
        *,
        opens: bool,
        reads: bool = False,
        sends: bool = True,
    ) -> None:
        """Sorts them.

        Whether it `opens` an interface of this machine, `reads` a list while it goes on, and `sends` what it builds.
        """
        keywords = dict(keywords)
        self.source: object = None
        if reads:
            tables = [each for each in targets if hasattr(each, "__arrow_c_stream__")]
            targets = [each for each in targets if not hasattr(each, "__arrow_c_stream__")]
            lists = [*tables, *([keywords["list_of_ips_file"]] if keywords.get("list_of_ips_file") is not None else [])]
            keywords.pop("list_of_ips_file", None)
            if len(lists) > 1:
                raise ConfigError("Targets come from one list: a table, or list_of_ips_file.")
            self.source = lists[0] if lists else None
        run = {name: value for name, value in keywords.items() if name in _RUN_KEYWORDS}
        check_numbers(run)
        check_fields(run.get("output_fields"))
        plan = {name: value for name, value in keywords.items() if name not in _RUN_KEYWORDS}
        given = run.get("plan")
        if given is not None:
            given = given.replace(rate=plan.pop("rate", None), contact=plan.pop("contact", None))
            if targets or plan:
                what = next(iter(plan), "targets")
                raise ConfigError(f"A plan says what is probed: {what} cannot be given beside it.")
        policy: Policy = run.get("policy") or base or Policy.from_config()
        policy = Policy(**{name: run.get(name) for name in _OF_THE_POLICY}).over(policy)
        if self.source is not None and given is None:
            # The plan says where targets may lie and not which they are, so that it has no place to number them all.
            plan.setdefault("max_targets", MOST_TARGETS)
        if given is None and not plan.get("blocklist_file") and policy.blocklist_file is not None:
            plan["blocklist_file"] = [policy.blocklist_file]
        self.plan = Plan(*targets, **plan) if given is None else given
        self.policy = policy
        self.keywords = {name: value for name, value in run.items() if name not in _NOT_FOR_THE_CORE}
        # A wrong shard, an empty target set and a missing permission are said now, not at the first batch.
        self.plan.targets(shard=self.keywords.get("shard", 0))
        if sends:
            refuse_early(self.plan, policy, opens)
        if self.keywords.get("output_filter") is not None:
            if "rows" in self.keywords:
                raise ConfigError("Either rows says which answers become rows, or output_filter: give one of them.")
            check_filter(self.keywords["output_filter"], self.plan)

        user_metadata = run.get("user_metadata")
        self.about = About(
            seed_provided=given is not None or plan.get("seed") is not None,
            notes=run.get("notes"),
            user_metadata=None if user_metadata is None else json.dumps(user_metadata),
        )

    def scan(
        self,
        open_stack: Callable[[], RawStack],
        link: Mapping[str, Any] | None = None,
        saved: checkpoints.Saved | None = None,
    ) -> Run:
        """The scan, which opens its stack when it begins; `link` says how, for a checkpoint. Or it goes on from one."""

        def start(checkpoint: RawCheckpoint | None, ready: Callable[[], None] | None) -> RawRun:
            return open_stack().scan(self.plan, self.policy, checkpoint=checkpoint, ready=ready, **self.keywords)

        # What goes on from a checkpoint has a sample of its own, or none: the first one's file would be written over.
        kept = {name: value for name, value in self.keywords.items() if not name.startswith("capture_sample")}
        recipe = None if link is None else checkpoints.Recipe(self.plan, kept, link)
        return self._run("scan", start, recipe=recipe, saved=saved)

    def exchange(self, open_stack: Callable[[], RawStack], request: bytes | str | None) -> Run:
        """The exchange, which opens its list and its stack when it begins."""
        column = self.keywords.pop("request_column", None)
        if self.source is None:
            if column is not None:
                raise ConfigError("A column of requests is one of a list: give that too (list_of_ips_file).")
        elif column is not None and request:
            raise ConfigError("Each row brings its request, or all get the same: give request or request_column.")
        else:
            return self._listed(open_stack, None if column is not None else request, column)

        def start(_: RawCheckpoint | None, ready: Callable[[], None] | None) -> RawRun:
            return open_stack().exchange(self.plan, self.policy, request, ready=ready, **self.keywords)

        return self._run("exchange", start)

    def _listed(self, open_stack: Callable[[], RawStack], request: bytes | str | None, column: str | None) -> Run:
        """The same with the targets of a list, which takes a quarter of the memory."""
        keywords = dict(self.keywords)
        memory = keywords.pop("max_memory", 2 << 30)
        reprobe = keywords.pop("reprobe", 2)

        @cache
        def opened() -> RawList:
            return RawList(self.source, self.plan, reprobe, memory // 4, column)

        def start(_: RawCheckpoint | None, ready: Callable[[], None] | None) -> RawRun:
            listed = opened()
            rest = {"max_memory": memory - memory // 4, "reprobe": 0, "ready": ready}
            return open_stack().exchange(self.plan, self.policy, request, listed=listed, **keywords, **rest)

        return self._run("exchange", start, opened)

    def _run(
        self,
        of: Literal["scan", "exchange"],
        start: Callable[[RawCheckpoint | None, Callable[[], None] | None], RawRun],
        listed: Callable[[], RawList] | None = None,
        recipe: checkpoints.Recipe | None = None,
        saved: checkpoints.Saved | None = None,
    ) -> Run:
        def begin(checkpoint: RawCheckpoint | None, ready: Callable[[], None] | None) -> RawRun:
            watch = None if self.policy.optout_file is None else Watch(self.policy.optout_file)
            run = start(checkpoint, ready)
            if watch is not None:
                watch.follow(run)
            return run

        return Run(
            begin,
            family=self.plan.family,
            output_fields=self.keywords.get("output_fields"),
            about=self.about,
            of=of,
            listed=listed,
            recipe=recipe,
            saved=saved,
            highest_rate=self.highest_rate,
            plan=self.plan,
            shard=self.keywords.get("shard", 0),
        )

    @property
    def highest_rate(self) -> float | None:
        """What the policy allows at most; None where it says nothing, or the plan asked for more and was let."""
        most = self.policy.rate
        return most if most and 0 < self.rate <= most else None

    @property
    def rate(self) -> float:
        """Probes a second that were asked for; 0 for as many as go."""
        given = (self.plan.rate, self.policy.rate, DEFAULT_RATE)
        return next(rate for rate in given if rate is not None)

    @property
    def towards(self) -> IPv4Address | IPv6Address:
        """A target, whose route stands for all."""
        first = next(iter(self.plan.targets(count=1))).to_pydict()["address"][0]
        return IPv4Address(first) if isinstance(first, int) else IPv6Address(first)
