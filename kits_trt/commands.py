"""Where the commands of this package start; their modules are imported once they can be ended."""

from kits_runtime.cli.start import Main, started


def train() -> int:
    """``kits-train``."""

    def load() -> Main:
        from kits_trt.train.cli import main

        return main

    return started("kits-train", load)


def evaluate() -> int:
    """``kits-eval``."""

    def load() -> Main:
        from kits_trt.evaluation.cli import main

        return main

    return started("kits-eval", load)


def phantom() -> int:
    """``kits-phantom``."""

    def load() -> Main:
        from kits_trt.phantom.cli import main

        return main

    return started("kits-phantom", load)
