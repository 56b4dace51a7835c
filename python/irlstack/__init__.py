"""Internet measurement from Python, with a Rust and eBPF core.

>>> import irlstack as irl
>>> irl.__version__
'0.1.0'
"""

from irlstack._core import __version__
from irlstack.errors import ConfigError, EngineError, IrlError, PolicyError, PrivilegeError

__all__ = ["ConfigError", "EngineError", "IrlError", "PolicyError", "PrivilegeError", "__version__"]
