"""Which files this process holds open.

Threads of other tests close theirs when they like, so compare what was not open before.
"""

from pathlib import Path


def open_files() -> set[tuple[int, Path]]:
    """Every descriptor, and what it leads to."""
    found = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            found.add((int(descriptor.name), descriptor.readlink()))
        except FileNotFoundError:  # closed since, as that of the listing itself
            continue
    return found
