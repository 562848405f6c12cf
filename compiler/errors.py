"""What the compiler refuses, as exceptions whose text is the explanation."""

from __future__ import annotations

from turbo4d.runtime.errors import Turbo4DError


class CaptureError(Turbo4DError):
    """A module that cannot become one pure graph."""


class NoSitesError(CaptureError):
    """A captured graph in which no attention on the sample's path was found."""


class GeometryError(Turbo4DError):
    """Views, frames or sizes that the graph contradicts or leaves open."""


class LowerError(Turbo4DError):
    """A variant that an engine cannot take."""


class VerifyError(Turbo4DError):
    """A graph that breaks an invariant of the intermediate representation."""


class GraphFileError(Turbo4DError):
    """A file that holds no graph or no pass of ours, or a graph that a file cannot hold."""


class CalibrationError(Turbo4DError):
    """A network, a sampler or a target for which no plan can be measured or found."""
