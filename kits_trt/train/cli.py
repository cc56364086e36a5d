"""``kits-train``: trains the nets of a published system on a folder of cases.

Nothing here needs torch until the training begins, so that ``--help`` and ``--check-data`` work,
and a missing extra is named, without it.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from kits_runtime.cli.console import (
    EXIT_OK,
    exit_code_of,
    interrupted_once,
    say,
    set_up_logging,
)
from kits_runtime.errors import BackendUnavailableError, ScanError, UsageError
from kits_trt.data.check import check_cases
from kits_trt.data.datasets import TrainingCase, find_training_cases
from kits_trt.systems import SYSTEMS, System, with_cysts
from kits_trt.systems.recipe import Recipe
from kits_trt.train.options import NAME, parser_of_command
from kits_trt.train.turns import first_tells, local_rank

if TYPE_CHECKING:
    from kits_trt.train.compute import Compute
    from kits_trt.train.ranks import Ranks
    from kits_trt.train.teller import Teller
    from kits_trt.train.wanted import Wanted


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    options = parser_of_command().parse_args(argv)
    set_up_logging(verbose=options.verbose, debug=options.debug)
    with interrupted_once():
        return exit_code_of(lambda: _run(options), name=NAME, debug=options.debug)


def _run(options: argparse.Namespace) -> int:
    with first_tells(os.environ):
        cases = find_training_cases(options.data)
        held_out = find_training_cases(options.validation_data) if options.validation_data else ()
        if options.check_data:
            return _check(options, (*cases, *held_out))
        _require_files((*cases, *held_out))
        system = _system(options)
        if options.out is None:
            raise UsageError("--out: found none, expected the folder of the run; name one")
        _require_torch()
        compute = _compute(options)
    return _train(options, system, (cases, held_out), compute)


def _check(options: argparse.Namespace, cases: Sequence[TrainingCase]) -> int:
    from kits_trt.train.teller import Teller

    teller = Teller(sys.stderr, quiet=options.quiet, progress=not options.no_progress)
    findings = check_cases(cases, progress=teller.checking)
    teller.end()
    for finding in findings:
        if finding.bad or not options.quiet:
            say(f"{'bad' if finding.bad else 'note'}: {finding.case}: {finding.message}")
    bad = sorted({finding.case for finding in findings if finding.bad})
    if bad:
        raise ScanError(
            f"{options.data}: found {len(bad)} bad of {len(cases)} cases ({', '.join(bad[:8])}), "
            "expected none; correct or remove them"
        )
    teller.say(f"{len(cases)} cases, none of them bad")
    return EXIT_OK


def _require_files(cases: Sequence[TrainingCase]) -> None:
    for what, bad in (
        ("segmentation", [case.name for case in cases if case.labels is None]),
        ("scan", [case.name for case in cases if not case.scan.is_file()]),
    ):
        if bad:
            raise ScanError(
                f"{bad[0]}: found no {what} (so {len(bad)} of {len(cases)} cases), expected both "
                "scan and segmentation; add it, or take the case out of the folder"
            )


def _system(options: argparse.Namespace) -> System:
    """The system with its recipes as the options change them."""
    system = SYSTEMS[options.system](options.preset)
    if options.cyst == "class":
        system = with_cysts(system)
    if options.net is not None and options.net not in system.nets:
        raise UsageError(
            f"--net: found {options.net!r}, expected one of {', '.join(system.nets)}; choose one"
        )

    def changed(recipe: Recipe) -> Recipe:
        rate = options.learning_rate or recipe.optimiser.learning_rate
        return replace(
            recipe,
            optimiser=replace(recipe.optimiser, learning_rate=rate),
            epochs=options.epochs or recipe.epochs,
            batch_size=options.batch_size or recipe.batch_size,
        )

    recipes = {net: changed(recipe) for net, recipe in system.recipes.items()}
    return replace(system, recipes=recipes)


def _require_torch() -> None:
    for package in ("torch", "safetensors"):
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise BackendUnavailableError(
                f"{package}: found no such package, expected it for training; install the extra "
                "'train': pip install 'kits-trt[train]'"
            ) from error


def _compute(options: argparse.Namespace) -> "Compute":
    import torch

    from kits_trt.train.compute import Compute, device_named

    if options.threads:
        torch.set_num_threads(options.threads)
    compute = Compute(
        device=device_named(options.device, local_rank=local_rank(os.environ)), amp=options.amp
    )
    if compute.is_cuda:
        torch.cuda.set_device(compute.device)
    return compute


def _train(
    options: argparse.Namespace,
    system: System,
    cases: tuple[Sequence[TrainingCase], Sequence[TrainingCase]],
    compute: "Compute",
) -> int:
    from kits_trt.train.ranks import joined_ranks
    from kits_trt.train.run import run_training
    from kits_trt.train.teller import Teller

    with joined_ranks(os.environ, cuda=compute.is_cuda) as ranks, first_tells(os.environ):
        teller = Teller(
            sys.stderr,
            quiet=options.quiet or not ranks.is_first,
            progress=not options.no_progress,
        )
        try:
            wanted = _wanted(options, system, cases, ranks=ranks, teller=teller)
            run_training(wanted, compute=compute, ranks=ranks, teller=teller)
        finally:
            teller.end()
    return EXIT_OK


def _wanted(
    options: argparse.Namespace,
    system: System,
    cases: tuple[Sequence[TrainingCase], Sequence[TrainingCase]],
    *,
    ranks: "Ranks",
    teller: "Teller",
) -> "Wanted":
    from kits_trt.train.course import Budget
    from kits_trt.train.provenance import data_facts
    from kits_trt.train.wanted import Data, Wanted

    teaching, held_out = cases
    options.out.mkdir(parents=True, exist_ok=True)
    facts = ranks.told_by_first(lambda: data_facts(options.data, teaching, teller.hashing))
    other = None
    if held_out:
        other = ranks.told_by_first(
            lambda: data_facts(options.validation_data, held_out, teller.hashing)
        )
    return Wanted(
        system=system,
        data=Data(
            cases=tuple(teaching),
            facts=facts,
            validating=tuple(held_out),
            validating_facts=other,
            cyst=options.cyst,
        ),
        out=options.out,
        cache=options.cache or options.out / "cache",
        budget=Budget(
            seed=options.seed,
            steps=options.max_steps,
            minutes=options.minutes,
            validate_every=options.validate_every,
            workers=options.workers,
        ),
        nets=(options.net,) if options.net else tuple(system.nets),
        resume=options.resume,
        start=options.start,
    )
