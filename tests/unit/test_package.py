"""The package as a whole."""

import irlstack as irl
from irlstack import _core


def test_the_extension_and_the_package_are_of_one_version() -> None:
    assert irl.__version__ == _core.__version__


def test_every_name_the_extension_exports_can_be_reached_from_the_package() -> None:
    wrapped = {"RawRun": "Run", "RawStack": "Stack"}
    missing = {name for name in _core.__all__ if not hasattr(irl, wrapped.get(name, name))}
    assert not missing


def test_every_public_name_has_a_docstring() -> None:
    undocumented = [name for name in irl.__all__ if name != "__version__" and not getattr(irl, name).__doc__]
    assert not undocumented


def test_errors_are_also_the_errors_that_python_has_for_the_case() -> None:
    assert issubclass(irl.ConfigError, ValueError)
    assert issubclass(irl.PrivilegeError, PermissionError)
    assert issubclass(irl.EngineError, OSError)
    assert all(issubclass(getattr(irl, name), irl.IrlError) for name in irl.__all__ if name.endswith("Error"))
