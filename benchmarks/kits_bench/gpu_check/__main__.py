"""Runs the check: ``python -m kits_bench.gpu_check``."""

import sys

from kits_bench.gpu_check.cli import main

if __name__ == "__main__":
    sys.exit(main())
