"""Internet measurement from Python, with a Rust and eBPF core.

>>> import irlstack as irl
>>> irl.PrefixSet("192.0.2.0/24").count
256
"""

from irlstack._core import Batch, Plan, PrefixSet, Targets, __version__
from irlstack.errors import ConfigError, EngineError, IrlError, PolicyError, PrivilegeError

__all__ = [
    "Batch",
    "ConfigError",
    "EngineError",
    "IrlError",
    "Plan",
    "PolicyError",
    "PrefixSet",
    "PrivilegeError",
    "Targets",
    "__version__",
]
