"""Exit codes."""

from enum import IntEnum


class ExitStatus(IntEnum):
    """What the command line tells its caller."""

    DONE = 0
    """All that was asked for; a bound that the user set counts."""
    FAILED = 1
    """It went wrong on the way."""
    USAGE = 2
    """What was asked for makes no sense."""
    REFUSED = 3
    """The policy says no; the reason is on stderr."""
    UNAVAILABLE = 4
    """A privilege, the interface or the engine is missing."""
    INCOMPLETE = 5
    """Done, but something was lost: see the metadata."""
    INTERRUPTED = 130
    """Ctrl-C; what was measured is kept."""
