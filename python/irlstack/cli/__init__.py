"""The command line `irlstack`: data on stdout, words on stderr, and an exit code that means something."""

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError, Group, Parameter

import irlstack as irl
from irlstack.cli import bench, console, lab, log
from irlstack.cli.demo import demo
from irlstack.cli.doctor import doctor
from irlstack.cli.exchange import exchange
from irlstack.cli.help import Flowing
from irlstack.cli.identity import identity
from irlstack.cli.ledger import ledger
from irlstack.cli.options import STANDARD_STREAM
from irlstack.cli.plan import plan, when
from irlstack.cli.report import methods, report
from irlstack.cli.scan import scan
from irlstack.cli.schema import schema
from irlstack.cli.status import ExitStatus

app = App(
    name="irlstack",
    help="Internet measurement from one host: stateless scans and TCP exchanges, checked against a synthetic Internet.",
    version=irl.__version__,
    version_flags=("--version", "-V"),
    help_format="plaintext",
    help_formatter=Flowing(),
    default_parameter=Parameter(negative=(), show_default=False, show_choices=False),
    print_error=False,
    exit_on_error=False,
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)
COMMANDS = {
    "Measure": (scan, exchange, plan, when),
    "Tell of it": (report, methods, ledger, identity, schema),
    "Look at this machine, and try things out": (doctor, demo, lab.app, bench.app),
}
for number, (does, commands) in enumerate(COMMANDS.items(), 1):
    group = Group(does, sort_key=number)
    for command in commands:
        if isinstance(command, App):
            command.group = group
            app.command(command)
        else:
            app.command(command, group=group)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    if arguments is None:
        # `timeout` and service managers ask with SIGTERM: it ends a run as Ctrl-C does, with its rows kept.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    with log.until_the_end():
        return _run(sys.argv[1:] if arguments is None else arguments)


def _run(given: Sequence[str]) -> int:
    try:
        status = app([STANDARD_STREAM if each == "-" else each for each in given])
        with contextlib.suppress(BrokenPipeError):
            sys.stdout.flush()
    except CycloptsError as error:
        if log.asks_for_json(given):
            log.begin("json")
        return _end(ExitStatus.USAGE, " ".join(str(error).split()), "usage")
    except irl.PolicyError as error:
        return _end(ExitStatus.REFUSED, f"refused: {error}", "refused")
    except (irl.PrivilegeError, irl.EngineError) as error:
        return _end(ExitStatus.UNAVAILABLE, str(error), "unavailable")
    except irl.ConfigError as error:
        return _end(ExitStatus.USAGE, str(error), "usage")
    except irl.IrlError as error:
        return _end(ExitStatus.FAILED, str(error), "failed")
    except BrokenPipeError:
        # The reader has seen enough; what is still buffered must not complain when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitStatus.DONE
    except OSError as error:
        text = f"{error.filename}: {error.strerror}." if error.filename else f"{error}."
        return _end(ExitStatus.USAGE, text, "file")
    except KeyboardInterrupt:
        if log.is_json():
            console.say("Interrupted.", event="interrupted", level=logging.WARNING, exit=int(ExitStatus.INTERRUPTED))
        return ExitStatus.INTERRUPTED
    except Exception:
        if not log.is_json():
            raise
        log.SAID.critical("A bug in irlstack.", exc_info=True, extra={"event": "bug"})
        return ExitStatus.FAILED
    return int(status or ExitStatus.DONE)


def _end(status: ExitStatus, text: str, event: str) -> ExitStatus:
    """Says what ended the command."""
    console.complain(text, event=event, level=logging.CRITICAL, exit=int(status))
    return status
