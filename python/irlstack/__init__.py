"""Internet measurement from Python, with a Rust and eBPF core.

>>> import irlstack as irl
>>> irl.PrefixSet("192.0.2.0/24").count
256
"""

from irlstack._core import Batch, Plan, PrefixSet, Probe, Targets, __version__
from irlstack.errors import ConfigError, EngineError, IrlError, PolicyError, PrivilegeError
from irlstack.policy import Policy

__all__ = [
    "Batch",
    "ConfigError",
    "EngineError",
    "IrlError",
    "Plan",
    "Policy",
    "PolicyError",
    "PrefixSet",
    "PrivilegeError",
    "Probe",
    "Targets",
    "__version__",
]
