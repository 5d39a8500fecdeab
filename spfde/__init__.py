"""SpFDE: dynamic sparse training with progressive layer freezing and circular data sieving.

from spfde import SparseTraining, settings_for
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spfde.api import SparseTraining
    from spfde.experiments.resolve import settings_for

__version__ = "0.3.0.dev0"
__all__ = ["SparseTraining", "__version__", "settings_for"]


def __getattr__(name: str) -> Any:
    """Imports what the package offers when it is first asked for: `import spfde` alone takes no time."""
    if name == "SparseTraining":
        from spfde.api import SparseTraining

        return SparseTraining
    if name == "settings_for":
        from spfde.experiments.resolve import settings_for

        return settings_for
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
