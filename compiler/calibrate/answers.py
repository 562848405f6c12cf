"""answers: what a network's call gives its caller, made anew of other tensors.

A run in which most calls are decided beforehand would spend its time on getting arguments ready for
a graph that is not asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from turbo4d.compiler.compat import flatten_with_path, with_leaves


@dataclass(frozen=True)
class AnswerForm:
    """The nest that a call gives, and which of the graph's outputs stand in it where.

    Args:
        answer: of one call.
        places: of each leaf among the outputs.
    """

    answer: Any
    places: tuple[int, ...]

    @staticmethod
    def of(answer: Any, outputs: Sequence[Tensor]) -> AnswerForm | None:
        """The form of a call's answer; None where the outputs themselves are not its leaves.

        Args:
            answer: what the caller was given.
            outputs: what the graph gave in the same call.
        """
        at = {id(output): place for place, output in enumerate(outputs)}
        leaves = [leaf for _, leaf in flatten_with_path(answer)]
        if not leaves or any(id(leaf) not in at for leaf in leaves):
            return None
        return AnswerForm(answer, tuple(at[id(leaf)] for leaf in leaves))

    def made(self, outputs: Sequence[Tensor]) -> Any:
        """The answer that the caller would be given with these outputs."""
        return with_leaves(self.answer, [outputs[place] for place in self.places])
