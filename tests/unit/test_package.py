"""The package as a whole."""

import pkgutil

import irlstack as irl
from irlstack import _core


def test_the_extension_and_the_package_are_of_one_version() -> None:
    assert irl.__version__ == _core.__version__


WRAPPED = {
    "Baseline": "irlstack.bench.threads.Baseline",
    "DEFAULT_RATE": "irlstack.request.Request",
    "FILTER_BUILT": "irlstack.doctor.examine",
    "Hosts": "irlstack.lab.responders.start",
    "KernelSockets": "irlstack.bench.clients._sockets",
    "Relay": "irlstack.lab.responders.start",
    "RawCompletion": "irlstack.stack.Completion",
    "RawList": "irlstack.stack.exchange",
    "RawOutputs": "irlstack.run.Run.write",
    "RawRun": "irlstack.run.Run",
    "RawStack": "irlstack.stack.Stack",
    "RawStream": "irlstack.stack.Stack.send",
    "Sink": "irlstack.bench.far_end.sink",
    "interface": "irlstack.doctor.examine",
    "pcap_version": "irlstack.bench.tx.contenders",
    "record_run": "irlstack.run.Run.record",
    "refuse_early": "irlstack.request.Request",
}


def test_every_name_the_extension_exports_has_a_wrapper() -> None:
    bare = {name for name in _core.__all__ if not hasattr(irl, name)}
    assert bare == set(WRAPPED)
    assert all(pkgutil.resolve_name(wrapper).__doc__ for wrapper in WRAPPED.values())


def test_every_public_name_has_a_docstring() -> None:
    undocumented = [name for name in irl.__all__ if name != "__version__" and not getattr(irl, name).__doc__]
    assert not undocumented


def test_errors_are_also_the_errors_that_python_has_for_the_case() -> None:
    assert issubclass(irl.ConfigError, ValueError)
    assert issubclass(irl.PrivilegeError, PermissionError)
    assert issubclass(irl.EngineError, OSError)
    assert all(issubclass(getattr(irl, name), irl.IrlError) for name in irl.__all__ if name.endswith("Error"))
