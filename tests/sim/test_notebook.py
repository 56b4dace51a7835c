"""The notebooks of examples/ run from top to bottom, and a run is a table in them."""

import ast
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

import irlstack as irl
from irlstack import notebook

EXAMPLES = Path(__file__).parents[2] / "examples"


def execute(path: Path) -> tuple[dict[str, Any], list[object]]:
    """The names that a notebook's cells leave, and what each shows: the value of its last line, as in Jupyter."""
    names: dict[str, Any] = {}
    shown = []
    for number, cell in enumerate(json.loads(path.read_text())["cells"]):
        if cell["cell_type"] != "code":
            continue
        body = ast.parse("".join(cell["source"]), f"{path.name}[{number}]")
        last = body.body.pop() if isinstance(body.body[-1], ast.Expr) else None
        exec(compile(body, path.name, "exec"), names)  # noqa: S102
        if isinstance(last, ast.Expr):
            shown.append(eval(compile(ast.Expression(last.value), path.name, "eval"), names))  # noqa: S307
    return names, shown


def cells_of(html: str) -> Mapping[str, str]:
    rows = ElementTree.fromstring(html).iter("tr")
    return {row[0].text or "": row[1].text or "" for row in rows}


def test_from_a_scan_to_a_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    names, shown = execute(EXAMPLES / "scan.ipynb")
    run, by_class, by_prefix, figure, hosts, right = shown
    assert cells_of(run._repr_html_())["state"] == "done"
    assert set(by_class["classification"]) == {"synack", "rst", "icmp"}
    assert sum(by_prefix["found"]) == run.summary["found"] > 10_000
    assert figure.axes[0].get_xlabel() == "10.x.0.0/16"
    assert hosts._repr_svg_().startswith("<svg")
    ((answering, missed, invented),) = right.rows()
    assert (answering - missed, invented) == (run.summary["found"], 0)
    assert 0 < missed < 0.004 * answering, "0.2 % of two losses in a row"
    names["pyplot"].close("all")


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda path: path.name)
def test_a_notebook_is_kept_without_outputs_and_readable(path: Path) -> None:
    document = json.loads(path.read_text())
    assert document["nbformat"] == 4
    for cell in document["cells"]:
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None
        assert all(len(line) <= 121 for line in cell["source"])
    assert path.read_text() == json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def test_a_run_is_a_short_table() -> None:
    run = irl.scan("10.3.0.0/24", ports=[80, 443], engine="sim", rate=20_000, cooldown_time=0.1, seed=1)
    assert cells_of(run._repr_html_()) == {"state": "not begun"}
    rows = iter(run)
    assert cells_of(run._repr_html_())["state"] in ("sending", "receiving")
    found = sum(len(batch) for batch in rows)
    said = cells_of(run._repr_html_())
    assert said.pop("time").endswith("s")
    assert said.pop("rate").endswith("kpps (asked for: 20 kpps)")
    assert said == {
        "state": "done",
        "engine": "sim on sim, synthetic: no frame leaves the machine",
        "probe": "tcp_synscan",
        "targets": "10.3.0.0/24",
        "ports": "80,443",
        "probes sent": "512 of 512",
        "found": f"{found} ({100 * found / 512:.3g} % of the probes)",
        "lost on our side": "nothing",
    }


def test_losses_are_told_and_nothing_is_markup() -> None:
    run = irl.scan("10.3.0.0/28", ports=80, engine="sim", rate=0, cooldown_time=0.1)
    for _ in run:
        pass
    document = run.summary
    document["iface"] = "<script>alert('x')</script>"
    document["error"] = "a & b"
    document["rows_lost"] = 3
    document["stats"]["overruns"] = 1234
    document["targets"]["given"] = ["10.0.0.0/8"] * 3
    document["targets"]["given_count"] = 5000
    html = notebook.table("do<ne", document)
    assert "<script" not in html
    said = cells_of(html)
    assert said["state"] == "do<ne"
    assert said["engine"].startswith("sim on <script>")
    assert said["error"] == "a & b"
    assert said["lost on our side"] == "1,234 answers not read in time, 3 rows not written"
    assert said["targets"].startswith("10.0.0.0/8, 10.0.0.0/8, 10.0.0.0/8 and 4,997 more")
    assert len(said["targets"]) <= 120
