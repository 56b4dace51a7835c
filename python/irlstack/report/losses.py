"""What a run knows of its losses, in words: for its closing words, the methods paragraph and the report."""

from collections.abc import Mapping
from typing import Any


def sentences(document: Mapping[str, Any]) -> list[str]:
    """A sentence for each source that the metadata of a run have; none where nothing is known."""
    return [each for each in (_estimated(document.get("loss")), _rechecked(document.get("recheck"))) if each]


def _estimated(loss: Mapping[str, Any] | None) -> str:
    if loss is None:
        return ""
    return (
        f"Of probes to those that would answer, {_share(loss, 'probe_loss')} brought no answer; by that, "
        f"{loss['missed']:,.0f} targets were missed ({loss['missed_low']:,} to {loss['missed_high']:,})."
    )


def _rechecked(recheck: Mapping[str, Any] | None) -> str:
    if recheck is None:
        return ""
    parts = []
    if recheck["loss"] is not None:
        parts.append(
            f"Of {recheck['found_probed']:,} found targets that were probed once more, {_share(recheck, 'loss')} "
            "did not answer again."
        )
    if recheck["missed"] is not None:
        parts.append(
            f"Of {recheck['others_probed']:,} others, {recheck['others_found']:,} did now: {recheck['missed']:,.0f} of "
            f"all may have been missed ({recheck['missed_low']:,} to {recheck['missed_high']:,})."
        )
    return " ".join(parts)


def _share(of: Mapping[str, Any], name: str) -> str:
    """`1.9 % (1.5 to 2.4)`."""
    best, low, high = (100 * of[key] for key in (name, f"{name}_low", f"{name}_high"))
    return f"{best:.3g} % ({low:.3g} to {high:.3g})"
