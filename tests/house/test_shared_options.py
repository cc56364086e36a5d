"""What all commands can be asked alike."""

from importlib import import_module

import pytest

# kits-phantom is not among them yet: it tells no more than a line a case.
COMMANDS = (
    "kits_runtime.cli.infer",
    "kits_runtime.cli.info",
    "kits_trt.train.cli",
    "kits_trt.evaluation.cli",
    "kits_export.cli",
    "kits_bench.cli",
)


@pytest.mark.parametrize("module", COMMANDS)
def test_every_command_has_the_shared_options(
    module: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ending:
        import_module(module).main(["--help"])
    assert ending.value.code == 0
    told = capsys.readouterr().out
    for option in ("-q, --quiet", "-v, --verbose", "--debug", "--no-progress", "--version"):
        assert option in told
