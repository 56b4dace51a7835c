"""What a plan comes to, without sending anything."""

import irlstack as irl
from irlstack._core import DEFAULT_RATE
from irlstack.cli import console, frames, quantity
from irlstack.cli.options import bits_on_the_wire
from irlstack.errors import ConfigError

_FRAMES = 10


def show(plan: irl.Plan, policy: irl.Policy, shard: int, reprobe: int = 0) -> None:
    """The summary as words, and the first ten frames, a line each, on stdout."""
    if reprobe < 0:
        raise ConfigError(f"--reprobe {reprobe} cannot be: give a number of passes from 0.")
    say_summary(plan, policy, shard)
    if reprobe:
        most = len(plan.targets(shard=shard)) * plan.probes * reprobe
        console.say(f"reprobe      the silent, up to {reprobe} times: up to {most:,} probes more, not counted above")
    for frame in plan.frames(_FRAMES, shard):
        console.put(frames.describe(frame) + "\n")


def say_summary(plan: irl.Plan, policy: irl.Policy, shard: int) -> None:
    """Counts after the deny list, rate, bits a second, duration."""
    for line in [*summary(plan, shard), *_budget(plan, policy, shard)]:
        console.say(line)


def _budget(plan: irl.Plan, policy: irl.Policy, shard: int) -> list[str]:
    """How long the fullest network takes at its budget."""
    if (budget := policy.prefix_budget) is None:
        return []
    network = "/48" if plan.family == "ipv6" else "/24"
    line = f"budget       {budget:,g} probes/s to a {network}"
    if (targets := plan.most_in_network(shard)) is None:
        return [line]
    most = targets * plan.probes
    return [f"{line}; the fullest gets about {most:,.0f}, which takes {quantity.show_seconds(most / budget)}"]


def _shown(value: str) -> str:
    """On one line, whatever is in it."""
    return value if value.isprintable() else ascii(value)


def summary(plan: irl.Plan, shard: int = 0) -> list[str]:
    """What a plan comes to, as lines of words."""
    counts, probes = plan.counts(), len(plan.targets(shard=shard)) * plan.probes
    cut = [
        f"{quantity.show_count(counts[key])} {what}"
        for key, what in (("special", "special-purpose"), ("denied", "denied"), ("duplicates", "repeated"))
        if counts[key]
    ]
    addresses = f"{quantity.show_count(counts['kept'])} of {quantity.show_count(counts['asked'])}"
    lines = [
        f"fingerprint  {plan.fingerprint()[:16]} (seed {plan.seed})",
        f"probe        {plan.probe_module}"
        + "".join(f" {name}={_shown(value)}" for name, value in plan.probe_args.items()),
        f"addresses    {addresses}" + (f" ({', '.join(cut)})" if cut else ""),
    ]
    if plan.ports is not None:
        lines.append(f"ports        {plan.ports}")
    shards = f" in shard {shard} of {plan.shards}" if plan.shards > 1 else ""
    lines.append(f"probes       {probes:,}{shards}")
    rate = DEFAULT_RATE if plan.rate is None else plan.rate
    if rate:
        bits = quantity.show_rate(rate * bits_on_the_wire(plan.frame_len), "bit/s")
        lines.append(f"rate         {quantity.show_rate(rate, 'pps')}, {bits} on the wire")
        lines.append(f"duration     {quantity.show_seconds(probes / rate)}, and the cooldown")
    else:
        lines.append("rate         as fast as goes without loss of our own")
    return lines
