"""Trains one network of ``resunet-msvnet`` small on phantoms, for the default bundle.

``python -m kits_trt.train.minimal kidney --out run --steps 900``

Leaves ``run/resunet3d.safetensors`` (``tumour``: ``run/msvnet.safetensors``), the best weights by
validation Dice, and ``run/metrics.csv``. Batches depend on (seed, step) alone; with ``--minutes``
the learning rate follows the clock where that is ahead of the steps, so that such a run repeats
only roughly.
"""

import argparse
import logging
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from kits_runtime.errors import KitsError
from kits_trt.train.minimal_loop import Budget, Task, train
from kits_trt.train.minimal_losses import (
    deep_supervision_loss,
    deep_supervision_weight,
    focal_and_dice_loss,
)
from kits_trt.train.patches import Batch, kidney_batch, tumour_batch
from kits_trt.train.phantom_cache import Case, ScanRecipe, cached_cases
from kits_trt.train.record import Record
from kits_trt.train.validation import kidney_dices, tumour_dices

logger = logging.getLogger(__name__)

FIRST_HELD_OUT = 1_000_000  # case numbers of one seed: patients that training never sees


def _draw_kidney(cases: Sequence[Case], key: tuple[int, int], size: int) -> Batch:
    # Three of four batches are cut to part of the plane: half the cost, and more places.
    plane = (128, 128) if key[1] % 4 == 3 else (96, 96)
    return kidney_batch(cases, key=key, size=size, plane=plane)


def _draw_tumour(cases: Sequence[Case], key: tuple[int, int], size: int) -> Batch:
    return tumour_batch(cases, key=key, size=size)


def _kidney_loss(logits: Sequence[Tensor], labels: Tensor, epoch: int) -> Tensor:
    return deep_supervision_loss(logits, labels, mu=deep_supervision_weight(epoch))


def _tumour_loss(logits: Sequence[Tensor], labels: Tensor, _epoch: int) -> Tensor:
    return focal_and_dice_loss(logits[-1], labels)


TASKS: Mapping[str, Task] = {
    "kidney": Task(
        net="resunet3d",
        learning_rate=2e-3,
        batch_size=2,
        draw=_draw_kidney,
        loss=_kidney_loss,
        validate=kidney_dices,
    ),
    "tumour": Task(
        net="msvnet",
        learning_rate=2e-3,
        batch_size=24,
        draw=_draw_tumour,
        loss=_tumour_loss,
        validate=tumour_dices,
    ),
}


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = argparse.ArgumentParser(prog="python -m kits_trt.train.minimal", description=__doc__)
    parser.add_argument("task", choices=sorted(TASKS))
    parser.add_argument("--out", type=Path, required=True, help="folder for weights and metrics")
    parser.add_argument("--cache", type=Path, help="folder of rendered phantoms; OUT/cache if none")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=math.inf, help="end earlier than --steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int, default=100, help="phantoms to learn from")
    parser.add_argument("--held-out", type=int, default=8, help="phantoms to validate on")
    parser.add_argument("--validate-every", type=int, default=150, help="steps")
    parser.add_argument("--start", type=Path, help="checkpoint to begin from")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> float:
    """Render what is missing, train, and return the best mean validation Dice."""
    torch.set_num_threads(options.threads)
    task, recipe = TASKS[options.task], ScanRecipe(seed=options.seed)
    numbers = [*range(options.cases), *(FIRST_HELD_OUT + n for n in range(options.held_out))]
    found = cached_cases(
        options.cache or options.out / "cache", recipe, numbers, workers=2, progress=_log_rendering
    )
    facts = {"net": task.net, "preset": "small", "seed": options.seed, "recipe": recipe.key()}
    return train(
        task,
        Budget(
            steps=options.steps,
            seed=options.seed,
            minutes=options.minutes,
            validate_every=options.validate_every,
            start=options.start,
        ),
        cases=found[: options.cases],
        held_out=found[options.cases :],
        record=Record(options.out, facts),
    )


def _log_rendering(done: int, total: int) -> None:
    if done % 10 == 0 or done == total:
        logger.info("rendered %d of %d phantoms", done, total)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        best = run(parse_arguments(arguments))
    except KitsError as error:
        logger.error("%s", error)
        return error.exit_code
    logger.info("best mean validation Dice: %.4f", best)
    return 0


if __name__ == "__main__":
    sys.exit(main())
