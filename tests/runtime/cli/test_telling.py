"""The options that every command shares."""

import argparse
from importlib import metadata

import pytest

from kits_runtime.cli.telling import add_telling

FLAGS = ("-q", "--quiet", "-v", "--verbose", "--debug", "--no-progress")


def test_every_flag_is_off_until_it_is_given() -> None:
    parser = argparse.ArgumentParser(prog="kits-any")
    add_telling(parser)
    asked = vars(parser.parse_args([]))
    assert asked == dict.fromkeys(("quiet", "verbose", "debug", "no_progress"), False)
    for flag in FLAGS:
        assert sum(vars(parser.parse_args([flag])).values()) == 1


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser(prog="kits-any")
    add_telling(parser)
    with pytest.raises(SystemExit) as ending:
        parser.parse_args(["--version"])
    assert ending.value.code == 0
    assert capsys.readouterr().out == f"kits-any {metadata.version('kits-trt')}\n"
