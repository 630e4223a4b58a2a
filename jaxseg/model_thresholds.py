"""The thresholds that the model of a run decides at, and others in their place."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxseg import export, workdir
from jaxseg.errors import InputError
from jaxseg.progress import console
from jaxseg.tasks import Thresholds
from jaxseg.thresholds import Threshold, by_hand


def read(folder: Path, best_epoch: int) -> Thresholds | None:
    """Those of the run's model if it is of this epoch: chosen once and for all.

    None where it is not, or where somebody wrote something else in their place.
    """
    described = workdir.read_model(folder)
    if described.get("best_epoch") != best_epoch:
        return None
    stored = described.get("thresholds")
    try:
        return {kind: Threshold(**chosen) for kind, chosen in stored.items()}
    except (AttributeError, TypeError):
        return None


def with_chosen(
    stored: Thresholds | None, folder: Path, part: str, chosen: Mapping[str, float]
) -> Thresholds:
    """The thresholds of a finished run with those that were chosen by hand.

    Raises:
      InputError: the model has no such threshold, or was judged on another part.
    """
    unknown = chosen.keys() - (stored or {}).keys()
    if unknown:
        raise InputError(
            "thresholds that the model of a finished run has, judged at its best epoch",
            f"{', '.join(sorted(unknown))}; it has {', '.join(stored or ()) or 'none'}",
            "--threshold with those of model/model.json, and without --epoch last",
        )
    judged = workdir.judged_part(folder)
    if part != judged:
        raise InputError(
            f"--threshold with the part that the run was judged on, {judged}",
            f"--split {part}",
            f"--split {judged}",
        )
    return stored | {kind: by_hand(kind, value) for kind, value in chosen.items()}


def write(model: Path, thresholds: Thresholds, summaries: dict[str, Any]) -> None:
    """Gives a model folder other thresholds, and the metrics of its part at them."""
    variables, description = export.load_model(model)
    kept = {kind: dataclasses.asdict(t) for kind, t in thresholds.items()}
    changed = {**description, "thresholds": kept, "metrics": summaries}
    export.save_model(model, variables, changed)
    console.print(f"- {model} has the new thresholds", markup=False)
