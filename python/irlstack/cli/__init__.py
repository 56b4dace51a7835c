"""The command line `irlstack`."""

import sys


def main() -> int:
    """Run the command line and return its exit code."""
    sys.stdout.write("irlstack\n")
    return 0
