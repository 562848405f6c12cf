"""How the flat batch axis of a denoiser's sample factors, and the size of its latents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

from .errors import OptionError


@dataclass(frozen=True)
class Geometry:
    """The sizes that a plan is made for.

    Args:
        batch: classifier-free guidance branches, B.
        views: V.
        frames: F.
        height: of the latent, H.
        width: of the latent, W.

    Raises:
        OptionError: where a size is not an integer above 0.
    """

    batch: int
    views: int
    frames: int
    height: int
    width: int

    def __post_init__(self) -> None:
        for name, value in self.as_dict().items():
            # From a file a size may be anything, whatever the annotation says; True is an int.
            if type(value) is not int or value < 1:
                raise OptionError(f"geometry: {name} is {value!r}; wanted an integer above 0.")

    def as_dict(self) -> dict[str, int]:
        """The sizes by name, in the order of the fields."""
        return asdict(self)

    @staticmethod
    def from_mapping(sizes: Mapping[str, int]) -> Geometry:
        """The geometry with exactly these sizes.

        Raises:
            OptionError: where a name is unknown or missing.
        """
        wanted = {field.name for field in fields(Geometry)}
        if set(sizes) != wanted:
            raise OptionError(
                f"geometry: got {', '.join(sorted(sizes)) or 'nothing'}; "
                f"wanted {', '.join(sorted(wanted))}."
            )
        return Geometry(**sizes)

    def __str__(self) -> str:
        return ", ".join(f"{name} {size}" for name, size in self.as_dict().items())
