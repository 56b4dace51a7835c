"""The paper's figure 2, drawn from the document of `irlstack bench tx --batches`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from irlstack.errors import ConfigError

SUFFIXES = (".svg", ".png", ".pdf")


def check(path: Path) -> None:
    """Says what stands in the way, before anything is measured.

    Raises:
        ConfigError: a suffix that cannot be drawn, no such folder, or no matplotlib.
    """
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"--plot {path}: the suffix says how to draw; give one of {', '.join(SUFFIXES)}.")
    if not path.parent.is_dir():
        raise ConfigError(f"--plot {path}: there is no folder {path.parent}.")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise ConfigError("--plot needs matplotlib: pip install 'irlstack[report]'") from None


def draw(out: Mapping[str, Any], path: Path) -> None:
    """Draws the document's batches: rate and busy time a frame over batch size; lines are medians, bands are rounds."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    batches = out["batches"]
    sizes = [each["batch"] for each in batches]
    # Text stays text, and the same figures make the same file.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "irlstack"}):
        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        left = figure.add_subplot()
        right = left.twinx()
        for axes, key, factor, label, colour in (
            (left, "rate", 1e-6, "frames a second, millions", "tab:blue"),
            (right, "busy_ns_a_frame", 1, "busy time of the call a frame, ns", "tab:orange"),
        ):
            low, middle, high = ([each[key][which] * factor for each in batches] for which in ("min", "median", "max"))
            axes.plot(sizes, middle, "o-", color=colour)
            axes.fill_between(sizes, low, high, color=colour, alpha=0.2)
            axes.set_ylabel(label, color=colour)
            axes.set_ylim(bottom=0)
        left.set_xscale("log", base=2)
        left.set_xticks(sizes, [str(size) for size in sizes])
        left.set_xlabel("frames a batch")
        machine = out["machine"]
        left.set_title(f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}", fontsize="small")
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
