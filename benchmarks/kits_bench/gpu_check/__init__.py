"""One check of everything on an NVIDIA machine, in parts that resume; see ``docs/gpu.md``."""
