"""The errors a user can meet, and the exit code of each.

::

    KitsError (1)
    ├── UsageError (2)              options that contradict each other or what is there already
    ├── ScanError (3)               a scan, or a case, that cannot be read or is not a CT volume
    ├── BundleError (4)             a bundle that is damaged, unsafe or not ours
    │   └── ManifestError           its manifest breaks the schema
    ├── EngineError (1)             an engine that failed while running
    │   ├── EngineIncompatibleError (4)   a net file that this engine cannot load
    │   └── BackendUnavailableError (5)   a backend asked for by name that cannot run here
    ├── ParityError (6)             two computations that must agree do not
    └── OutOfMemoryError (7)        the plan does not fit

A message says where, what was found, what was expected and what to do. Misused arguments of the
Python API raise ``ValueError`` or ``TypeError`` instead.
"""


class KitsError(Exception):
    """Root of all errors that this package raises on purpose."""

    exit_code = 1


class UsageError(KitsError):
    """Options that contradict each other, or results that are there already."""

    exit_code = 2


class ScanError(KitsError):
    """A scan that cannot be read, or whose geometry or values make no sense for CT."""

    exit_code = 3


class BundleError(KitsError):
    """A bundle that is missing, damaged or unsafe."""

    exit_code = 4


class ManifestError(BundleError):
    """A manifest that breaks the schema; the message names the field."""


class EngineError(KitsError):
    """An engine that failed while running."""


class EngineIncompatibleError(EngineError):
    """A net file that this engine cannot load."""

    exit_code = 4


class BackendUnavailableError(EngineError):
    """A backend asked for by name that cannot run here; the message names the extra."""

    exit_code = 5


class ParityError(KitsError):
    """Two computations that must agree do not."""

    exit_code = 6


class OutOfMemoryError(KitsError):
    """The plan does not fit into memory."""

    exit_code = 7
