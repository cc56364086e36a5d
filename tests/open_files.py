"""Which files of a folder this process holds open; other tests and their threads do not count."""

from pathlib import Path


def open_below(folder: Path) -> list[str]:
    """The paths of all descriptors that lead into a folder, sorted."""
    paths = []
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            paths.append(descriptor.readlink())
        except FileNotFoundError:  # closed since, as that of the listing itself
            continue
    return sorted(str(path) for path in paths if path.is_relative_to(folder.resolve()))
