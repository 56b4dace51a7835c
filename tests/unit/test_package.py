"""The package as a whole."""

import importlib.metadata
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import irlstack as irl
from irlstack import _core


def test_the_extension_and_the_package_are_of_one_version() -> None:
    assert irl.__version__ == _core.__version__


ROOT = Path(__file__).parents[2]
OPTIONAL = ("duckdb", "matplotlib", "numpy", "polars", "prometheus_client", "pyarrow")


def extras() -> dict[str, set[str]]:
    """The packages of each extra."""
    found: dict[str, set[str]] = {}
    for text in importlib.metadata.requires("irlstack") or ():
        need = Requirement(text)
        if need.marker is not None:
            (extra,) = re.findall(r"extra == ['\"](\w+)['\"]", str(need.marker))
            found.setdefault(extra, set()).add(need.name.replace("-", "_"))
    return found


def without(packages: str, code: str) -> str:
    """What a program says last on an interpreter that lacks some packages."""
    lacking = f"import sys\nfor each in {packages.split()}: sys.modules[each] = None\n"
    done = subprocess.run(
        [sys.executable, "-c", lacking + code], capture_output=True, text=True, check=False, timeout=60
    )
    return (done.stdout + done.stderr).strip().splitlines()[-1]


def test_nothing_optional_is_imported_before_it_is_used() -> None:
    code = (
        "import irlstack as irl, irlstack.cli, irlstack.bench.commands\n"
        "run = irl.scan('10.0.0.0/24', ports=80, engine='sim', rate=0, cooldown_time=0)\n"
        "for batch in run: pass\n"
        "run.summary, run._repr_html_()\n"
        f"print(sorted({set(OPTIONAL)} & set(sys.modules)))"
    )
    assert without("", code) == "[]"


@pytest.mark.parametrize(
    ("lacking", "code", "extra"),
    [
        ("numpy", "import irlstack; irlstack.World().truth([1], [2])", "numpy"),
        ("numpy", "import irlstack; irlstack.report.hilbert([1])", "report"),
        ("pyarrow", "import irlstack; irlstack.report.hilbert('absent.csv')", "report"),
        ("prometheus_client", "import irlstack; irlstack.metrics.serve(None)", "metrics"),
        (
            "matplotlib",
            "from pathlib import Path; from irlstack.bench import plot; plot.check(Path('a.svg'))",
            "report",
        ),
    ],
)
def test_an_error_names_the_extra_that_brings_what_is_missing(lacking: str, code: str, extra: str) -> None:
    said = without(lacking, code)
    assert said.endswith(f"pip install 'irlstack[{extra}]'"), said
    assert lacking in extras()[extra]


def test_every_extra_that_is_spoken_of_is_there_and_pinned_for_the_tests() -> None:
    files = [path for folder in ("python", "docs", "examples") for path in (ROOT / folder).rglob("*.*")]
    texts = [path.read_text() for path in files if path.suffix in (".py", ".md", ".ipynb")]
    named = set(re.findall(r"irlstack\[(\w+)\]", "".join(texts)))
    for_one_use = {"duckdb", "matplotlib", "prometheus_client"}
    assert named <= extras().keys() == {*OPTIONAL, "metrics", "report", "notebook"} - for_one_use
    pinned = {line.partition("==")[0] for line in (ROOT / "requirements-dev.txt").read_text().splitlines()}
    assert set().union(*extras().values()) == set(OPTIONAL) <= pinned


WRAPPED = {
    "Baseline": "irlstack.bench.threads.Baseline",
    "DEFAULT_RATE": "irlstack.request.Request",
    "FILTER_BUILT": "irlstack.doctor.examine",
    "Hosts": "irlstack.lab.responders.start",
    "KernelSockets": "irlstack.bench.clients._sockets",
    "Relay": "irlstack.lab.responders.start",
    "RawCheckpoint": "irlstack.run.Run.write",
    "RawCompletion": "irlstack.stack.Completion",
    "RawList": "irlstack.measure.exchange",
    "RawOutputs": "irlstack.run.Run.write",
    "RawRun": "irlstack.run.Run",
    "RawStack": "irlstack.stack.Stack",
    "RawStream": "irlstack.stack.Stack.send",
    "Sink": "irlstack.bench.far_end.sink",
    "interface": "irlstack.doctor.examine",
    "pcap_version": "irlstack.bench.tx.contenders",
    "record_run": "irlstack.run.Run.record",
    "check_filter": "irlstack.request.Request",
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
