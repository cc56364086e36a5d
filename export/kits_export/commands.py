"""Where ``kits-export`` starts; its modules are imported once it can be ended."""

from kits_runtime.cli.start import Main, started


def export() -> int:
    """``kits-export``."""

    def load() -> Main:
        from kits_export.cli import main

        return main

    return started("kits-export", load)
