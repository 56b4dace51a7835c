"""Internet measurement from Python, with a Rust and eBPF core.

>>> import irlstack as irl
>>> irl.PrefixSet("192.0.2.0/24").count
256
"""

from irlstack import metrics, report
from irlstack._core import (
    EXCHANGE_SCHEMA_VERSION,
    SCHEMA_VERSION,
    Batch,
    Plan,
    PrefixSet,
    Probe,
    Targets,
    World,
    __version__,
    exchange_fields,
    scan_fields,
)
from irlstack.errors import ConfigError, EngineError, IrlError, PolicyError, PrivilegeError
from irlstack.measure import exchange, resume, scan
from irlstack.policy import Policy
from irlstack.run import About, Outcome, Rows, Run
from irlstack.stack import Completion, Stack

__all__ = [
    "EXCHANGE_SCHEMA_VERSION",
    "SCHEMA_VERSION",
    "About",
    "Batch",
    "Completion",
    "ConfigError",
    "EngineError",
    "IrlError",
    "Outcome",
    "Plan",
    "Policy",
    "PolicyError",
    "PrefixSet",
    "PrivilegeError",
    "Probe",
    "Rows",
    "Run",
    "Stack",
    "Targets",
    "World",
    "__version__",
    "exchange",
    "exchange_fields",
    "metrics",
    "report",
    "resume",
    "scan",
    "scan_fields",
]
