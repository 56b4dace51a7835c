"""`irlstack lab`: the test Internet in network namespaces."""

import dataclasses
import json
from typing import Annotated

from cyclopts import App, Parameter

from irlstack.cli import console
from irlstack.cli.status import ExitStatus
from irlstack.lab import commands, topology

app = App(name="lab", help="A test Internet on this machine: network namespaces with synthetic hosts and real servers.")


@app.command
def up(
    name: str | None = None,
    /,
    *,
    seed: int = 1,
    pairs: int = 1,
    service: str = "response",
    sshd: bool = False,
    misbehaving: bool = False,
    loss: float = 0.0,
    duplicate: float = 0.0,
    reorder: float = 0.0,
    delay_ms: float = 0.0,
    json_output: Annotated[bool, Parameter(name="--json")] = False,
) -> ExitStatus:
    """Make a lab that stays until `lab down`. Needs root; removes what a crashed lab left.

    Args:
        name: What to call it; random when not given.
        seed: Of its World, the synthetic hosts.
        pairs: Links from client to gateway, 1 to 4: va, va2 and so on, with the same hosts behind each.
        service: Behind open ports of the World: response, exchange:BYTES, exchange:BYTES:fin or gnutella.
        sshd: Also openssh's sshd, on port 22 of nginx's addresses.
        misbehaving: Also the server that misbehaves, there; docs/lab.md has its ports.
        loss: Share of frames lost on the way, each way, from 0 to 1.
        duplicate: Share of frames that arrive twice.
        reorder: Share of frames that arrive late.
        delay_ms: Time that every frame takes, each way.
        json_output: Print the lab's registration as JSON.
    """
    impaired = any((loss, duplicate, reorder, delay_ms))
    impairment = topology.Impairment(loss=loss, duplicate=duplicate, reorder=reorder, delay_ms=delay_ms, seed=seed)
    made = commands.up(name, seed=seed, pairs=pairs, service=service, impairment=impairment if impaired else None)
    if json_output:
        console.put(json.dumps(made.document()) + "\n")
        return ExitStatus.DONE
    console.say(f"The lab '{made.name}' is up.")
    for each in made.client_ends():
        console.say(f"  {each.name:<6} {each.ipv4} {each.ipv6}")
    for what, ranges in made.ranges.items():
        console.say(f"  {what:<6} {' '.join(ranges)}")
    console.say(f"Enter it with 'irlstack lab shell {made.name}'; remove it with 'irlstack lab down {made.name}'.")
    return ExitStatus.DONE


@app.command
def down(name: str | None = None, /) -> ExitStatus:
    """Remove a lab, or every lab, and whatever crashed ones left.

    Args:
        name: Which; all of them when not given.
    """
    removed = commands.down(name)
    console.say(f"Removed: {', '.join(removed)}." if removed else "There was no lab.")
    return ExitStatus.DONE


@app.command
def status(*, json_output: Annotated[bool, Parameter(name="--json")] = False) -> ExitStatus:
    """Show the labs there are.

    Args:
        json_output: Print them as JSON.
    """
    labs = commands.status()
    if json_output:
        console.put(json.dumps([dataclasses.asdict(each) for each in labs]) + "\n")
        return ExitStatus.DONE
    for each in labs:
        console.put(f"{each.name}  {each.state}  keeper {each.pid}  seed {each.seed}\n")
        for interface, addresses in each.interfaces.items():
            console.put(f"  {interface:<8} {' '.join(addresses)}\n")
        for role, namespace in each.namespaces.items():
            console.put(f"  {role:<8} {namespace}\n")
        for what, ranges in each.ranges.items():
            console.put(f"  {what:<8} {' '.join(ranges)}\n")
    if not labs:
        console.say("There is no lab; 'irlstack lab up' makes one.")
    return ExitStatus.DONE


@app.command
def shell(name: str | None = None, /) -> int:
    """Run your shell in a lab's client namespace.

    Args:
        name: Which lab; may be left out when there is one.
    """
    return commands.shell(name)


@app.command
def hold(name: str | None = None, /) -> ExitStatus:
    """Have a lab's synthetic hosts answer SYNs only, and swallow every other TCP segment, until `lab release`.

    Args:
        name: Which lab; may be left out when there is one.
    """
    console.say(f"The lab '{commands.tell('hold', name)}' is on hold.")
    return ExitStatus.DONE


@app.command
def release(name: str | None = None, /) -> ExitStatus:
    """End a hold: what clients send again is answered.

    Args:
        name: Which lab; may be left out when there is one.
    """
    console.say(f"The lab '{commands.tell('release', name)}' answers again.")
    return ExitStatus.DONE
