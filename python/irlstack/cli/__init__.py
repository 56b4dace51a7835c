"""The command line `irlstack`: data on stdout, words on stderr, and an exit code that means something."""

import contextlib
import os
import signal
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError, Group, Parameter

import irlstack as irl
from irlstack.cli import bench, console, lab
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
    try:
        given = sys.argv[1:] if arguments is None else arguments
        status = app([STANDARD_STREAM if each == "-" else each for each in given])
        with contextlib.suppress(BrokenPipeError):
            sys.stdout.flush()
    except CycloptsError as error:
        console.complain(" ".join(str(error).split()))
        return ExitStatus.USAGE
    except irl.PolicyError as error:
        console.complain(f"refused: {error}")
        return ExitStatus.REFUSED
    except (irl.PrivilegeError, irl.EngineError) as error:
        console.complain(str(error))
        return ExitStatus.UNAVAILABLE
    except irl.ConfigError as error:
        console.complain(str(error))
        return ExitStatus.USAGE
    except irl.IrlError as error:
        console.complain(str(error))
        return ExitStatus.FAILED
    except BrokenPipeError:
        # The reader has seen enough; what is still buffered must not complain when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitStatus.DONE
    except OSError as error:
        console.complain(f"{error.filename}: {error.strerror}." if error.filename else f"{error}.")
        return ExitStatus.USAGE
    except KeyboardInterrupt:
        return ExitStatus.INTERRUPTED
    return int(status or ExitStatus.DONE)
