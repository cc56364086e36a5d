"""The options that every command shares: what it tells, and how much."""

import argparse
import sys

from kits_runtime.cli.console import EXIT_OK, version

_VERSION_HELP = "show the version and exit"


class _ShowVersion(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Reads the version only when it is asked for."""
        sys.stdout.write(f"{parser.prog} {version()}\n")
        parser.exit(EXIT_OK)


def add_telling(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Adds the shared options and gives their group, for what a command tells besides.

    They are ``quiet``, ``verbose``, ``debug`` and ``no_progress``; ``--version`` ends the process.
    """
    group = parser.add_argument_group("telling")
    add = group.add_argument
    add("--no-progress", action="store_true", help="no line that moves")
    add("-q", "--quiet", action="store_true", help="only errors on stderr")
    add("-v", "--verbose", action="store_true", help="say more on stderr")
    add("--debug", action="store_true", help="say everything, with tracebacks")
    add("--version", action=_ShowVersion, nargs=0, default=argparse.SUPPRESS, help=_VERSION_HELP)
    return group
