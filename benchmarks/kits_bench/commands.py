"""Where ``kits-bench`` starts; its modules are imported once it can be ended."""

from kits_runtime.cli.start import Main, started


def bench() -> int:
    """``kits-bench``."""

    def load() -> Main:
        from kits_bench.cli import main

        return main

    return started("kits-bench", load)
