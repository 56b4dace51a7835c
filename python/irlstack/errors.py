"""What can go wrong, as a small tree: catch `IrlError` for everything, or the branch that matters.

The command line turns each branch into its exit code: `ConfigError` 2, `PolicyError` 3, `PrivilegeError` and
`EngineError` 4, anything else 1.
"""

__all__ = ["ConfigError", "EngineError", "IrlError", "PolicyError", "PrivilegeError"]


class IrlError(Exception):
    """The base of every error that irlstack raises on purpose."""


class ConfigError(IrlError, ValueError):
    """What was asked for makes no sense: a bad prefix, a port above 65535, an empty target set, two families."""


class PolicyError(IrlError):
    """The measurement was refused: it may not be sent as it stands. The message says what is missing."""


class EngineError(IrlError, OSError):
    """The network interface or the engine on it failed, is gone, occupied, or not there."""


class PrivilegeError(IrlError, PermissionError):
    """The process lacks a capability, which the message names together with a way to get it."""
