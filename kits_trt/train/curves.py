"""A picture of a training: losses and Dice of every net over its steps."""

import io
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kits_runtime.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

logger = logging.getLogger(__name__)

Row = Mapping[str, str]


def draw_curves(path: Path, rows: Sequence[Row]) -> None:
    """Write a PNG with a row of two plots a net; without matplotlib a note in the log instead."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        logger.info("%s: not drawn, matplotlib is missing (the extra 'train' has it)", path)
        return
    nets = list(dict.fromkeys(row["net"] for row in rows))
    figure = Figure(figsize=(9, 2.8 * len(nets)), layout="constrained")
    plots = figure.subplots(len(nets), 2, squeeze=False)
    for (losses, dices), net in zip(plots, nets, strict=True):
        own = [row for row in rows if row["net"] == net]
        _draw(losses, own, ("loss", "validation_loss"), title=f"{net}: loss")
        found = sorted({key for row in own for key in row if key.startswith("dice_") and row[key]})
        _draw(dices, own, ("mean_dice", *found), title=f"{net}: validation Dice")
        dices.set_ylim(0, 1)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=90, metadata={"Software": None})
    with replacing(path) as stream:
        stream.write(picture.getvalue())


def _draw(plot: "Axes", rows: Sequence[Row], names: Sequence[str], *, title: str) -> None:
    for name in names:
        points = [(int(row["step"]), float(row[name])) for row in rows if row.get(name)]
        if points:
            plot.plot(*zip(*points, strict=True), marker=".", label=name.replace("_", " "))
    plot.set_title(title, fontsize="medium")
    plot.set_xlabel("step")
    plot.grid(alpha=0.3)
    if plot.lines:
        plot.legend(fontsize="small")
