"""One backbone, many private heads: flexible federated learning for radiographs with unequal labels."""

from importlib.metadata import version

from polyhead.errors import PolyheadError

__all__ = ["PolyheadError", "__version__"]

__version__ = version("polyhead")
