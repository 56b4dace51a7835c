"""The wheel, in an environment that has nothing else, for somebody without compilers.

`make wheel` puts one for many systems in dist/. `make test` has none of these sources there as a rule, and makes one
for this machine alone of what it has built anyway.
"""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.tags import sys_tags
from packaging.utils import parse_wheel_filename

ROOT = Path(__file__).parents[2]
COMPILERS = re.compile(r"(rustc|cargo|rustup|clang.*|llvm.*|gcc.*|cc|c99|g\+\+.*|c\+\+|cpp.*|ld.*|.*-linux-gnu-.*)")
SYSTEM = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@pytest.fixture(scope="module")
def wheel() -> Path:
    """The newest wheel, if it was made of what is here now."""
    there = [path for folder in ("dist", "build/wheel") for path in (ROOT / folder).glob("irlstack-*-abi3-*.whl")]
    made = max(there, key=lambda path: path.stat().st_mtime, default=None)
    sources = [path for folder in ("crates", "python") for path in (ROOT / folder).rglob("*.[rpch]*")]
    newest = max(path.stat().st_mtime for path in sources if path.suffix in (".rs", ".c", ".h", ".py"))
    if made is None or made.stat().st_mtime < newest:
        lack = "there is no wheel of these sources: make build/stamp/wheel, or make wheel"
        assert os.environ.get("CI") != "true", lack
        pytest.skip(lack)
    return made


@pytest.fixture(scope="module")
def place(wheel: Path) -> Iterator[Path]:
    """A folder that anybody may enter, with a virtual environment that has the wheel and what it requires."""
    folder = Path(tempfile.mkdtemp(prefix="irl-wheel-"))
    folder.chmod(0o755)
    # The system's interpreter where there is one, since nobody else may enter the home of root.
    python = shutil.which("python3", path=SYSTEM) or sys.executable
    subprocess.run([python, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    site = next((folder / "venv" / "lib").glob("python3*")) / "site-packages"
    pip = [sys.executable, "-m", "pip", "--python", folder / "venv/bin/python", "install", "--quiet"]
    subprocess.run(
        [*pip, "--no-index", "--no-deps", wheel], check=True, env=os.environ | {"PIP_ROOT_USER_ACTION": "ignore"}
    )
    for name in required("irlstack"):
        for file in importlib.metadata.distribution(name).files or ():
            if ".." not in file.parts and file.suffix != ".pyc":
                (site / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file.locate(), site / file)
    (folder / "tools").mkdir()
    for part in SYSTEM.split(":"):
        for tool in Path(part).iterdir() if Path(part).is_dir() else ():
            link = folder / "tools" / tool.name
            if not COMPILERS.fullmatch(tool.name) and not link.is_symlink():
                link.symlink_to(tool)
    yield folder
    shutil.rmtree(folder)


def required(name: str) -> set[str]:
    """The packages that one requires without its extras, and those that they require."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        for text in importlib.metadata.requires(waiting.pop()) or ():
            need = Requirement(text)
            if (need.marker is None or need.marker.evaluate({"extra": ""})) and need.name not in found:
                found.add(need.name)
                waiting.append(need.name)
    return found


def run(place: Path, *arguments: str, user: int | None, tools: bool = False) -> subprocess.CompletedProcess[str]:
    """A command of the environment, in a folder where no checkout is and with no compiler on the path."""
    path = f"{place}/venv/bin" + (f":{place}/tools" if tools else "")
    for name in ("rustc", "cargo", "clang", "cc"):
        assert shutil.which(name, path=path) is None
    return subprocess.run(
        arguments,
        cwd="/",
        env={"PATH": path, "HOME": "/nonexistent", "LANG": "C.UTF-8"},
        user=user,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_it_says_where_it_runs_and_has_all_that_is_needed(wheel: Path) -> None:
    _, _, _, tags = parse_wheel_filename(wheel.name)
    assert {(tag.interpreter, tag.abi) for tag in tags} == {("cp311", "abi3")}
    kind = "manylinux_2_" if wheel.parent.name == "dist" else "linux_"
    assert all(tag.platform.startswith(kind) for tag in tags)
    assert tags & set(sys_tags())
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    here = {
        str(path.relative_to(ROOT / "python"))
        for path in (ROOT / "python" / "irlstack").rglob("*")
        if path.suffix in (".py", ".pyi", ".typed", ".css", ".js") and "__pycache__" not in path.parts
    }
    assert len(here) > 50
    assert here <= inside
    assert not any("tests" in Path(name).parts for name in inside)
    assert {name.rpartition("/")[2] for name in inside} >= {"LICENSE-MIT", "LICENSE-APACHE", "METADATA"}


def test_it_needs_no_newer_c_library_than_its_name_says(wheel: Path, tmp_path: Path) -> None:
    """What `auditwheel` looks at: the versions of symbols that the extension takes from its libraries."""
    _, _, _, tags = parse_wheel_filename(wheel.name)
    if all(tag.platform.startswith("linux_") for tag in tags):
        pytest.skip("this wheel is for this machine alone: make wheel")
    ((major, minor),) = {
        tuple(map(int, match.groups())) for tag in tags if (match := re.match(r"manylinux_(\d+)_(\d+)_", tag.platform))
    }
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".so")]
        extension = Path(archive.extract(name, tmp_path))
    # The strings of the file's tables rather than a linker's tool, so that none has to be here.
    tables = extension.read_bytes()
    wanted = {(int(a), int(b)) for a, b in re.findall(rb"\0GLIBC_(\d+)\.(\d+)(?:\.\d+)?(?=\0)", tables)}
    assert min(wanted) >= (2, 2)
    assert max(wanted) <= (major, minor)
    libraries = {name.decode() for name in re.findall(rb"\0(lib[\w+-]+\.so[.\d]*)(?=\0)", tables)}
    assert "libc.so.6" in libraries
    assert libraries <= {
        f"lib{name}.so.{n}" for name, n in (("c", 6), ("m", 6), ("dl", 2), ("pthread", 0), ("rt", 1), ("gcc_s", 1))
    }


@pytest.mark.timeout(300)
def test_the_demo_runs_for_somebody_who_is_not_root(place: Path) -> None:
    nobody = 65534 if os.geteuid() == 0 else None
    where = run(place, "python", "-c", "import irlstack, os; print(irlstack.__file__, os.geteuid())", user=nobody)
    assert where.stdout.startswith(f"{place}/venv/lib/"), where.stderr
    assert where.stdout.split()[1] != "0"
    done = run(place, "irlstack", "demo", user=nobody)
    assert done.returncode == 0, done.stderr
    assert re.search(r"sent \d{7} found \d{5} missed 0 invented 0", done.stdout + done.stderr)


@pytest.mark.root
@pytest.mark.alone
@pytest.mark.timeout(300)
def test_the_demo_runs_for_root_on_real_interfaces(place: Path) -> None:
    done = run(place, "irlstack", "demo", user=None, tools=True)
    assert done.returncode == 0, done.stderr
    assert "at the end of a veth pair" in done.stdout + done.stderr
    assert "missed 0 invented 0" in done.stdout + done.stderr


def test_what_an_extra_brings_is_named_where_it_is_missing(place: Path) -> None:
    done = run(place, "python", "-c", "import irlstack as irl; irl.report.hilbert('out.csv')", user=None)
    assert "pip install 'irlstack[report]'" in done.stderr
