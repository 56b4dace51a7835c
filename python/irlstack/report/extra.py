"""The packages of an extra, `irlstack[report]` unless another is named, imported when they are needed."""

import importlib
from typing import Any

from irlstack.errors import ConfigError


def need(module: str, extra: str = "report") -> Any:
    """The module.

    Raises:
        ConfigError: it is not installed; the message names the extra.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        name = module.partition(".")[0]
        raise ConfigError(f"This needs {name}: pip install 'irlstack[{extra}]'") from None
