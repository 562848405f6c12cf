"""Which denoisers a session speaks for, and the slots it keeps for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import is_
from typing import TYPE_CHECKING

from torch import Tensor, nn

from .runner import Runner

if TYPE_CHECKING:
    from .execution import Execution

# A denoiser is a runner called with certain weights: one runner may serve several modules of one
# class, and each has its own slots.
_Denoiser = tuple[Runner, frozenset[int]]


class Bindings:
    """Tells a session's own denoiser from others that are called while it is open.

    Args:
        target: what the session was opened on: a compiled module, a function, a loaded bundle or a
            runner.
    """

    def __init__(self, target: object) -> None:
        self._target = target
        self._latest: dict[Runner, tuple[tuple[Tensor, ...], Execution | None]] = {}
        self._executions: dict[_Denoiser, Execution | None] = {}

    def bind(
        self,
        runner: Runner,
        weights: tuple[Tensor, ...],
        start: Callable[[Runner, tuple[Tensor, ...]], Execution],
    ) -> Execution | None:
        """What the session carries out on a denoiser, None where it is not the session's.

        Args:
            runner: that was called.
            weights: it was called with.
            start: makes what carries out the plan, at the first call.
        """
        if runner in self._latest:
            seen, execution = self._latest[runner]
            if len(seen) == len(weights) and all(map(is_, seen, weights)):
                return execution
        pointers = frozenset(tensor.data_ptr() for tensor in weights)
        denoiser = self._known(runner, pointers)
        if denoiser not in self._executions:
            owned = self._owns(runner, pointers)
            self._executions[denoiser] = start(runner, weights) if owned else None
        self._latest[runner] = (weights, self._executions[denoiser])
        return self._executions[denoiser]

    def _known(self, runner: Runner, pointers: frozenset[int]) -> _Denoiser:
        """The denoiser that was called before, by this runner or one that stands for it."""
        for known in self._executions:
            if known[1] == pointers and known[0].stands_for(runner):
                return known
        return runner, pointers

    def rivals(self, execution: Execution) -> list[Execution]:
        """Of the same denoiser where torch compiled it once more, as for another batch size."""
        if len(self._executions) < 2:
            return []
        runner, pointers = next(d for d, run in self._executions.items() if run is execution)
        return [
            run
            for (other, others), run in self._executions.items()
            if run not in (None, execution)
            and others == pointers
            and other.signature.piece == runner.signature.piece
        ]

    def executions(self) -> list[Execution]:
        """Of the session's own denoisers."""
        return [execution for execution in self._executions.values() if execution is not None]

    def runners(self) -> set[Runner]:
        """Of the session's own denoisers."""
        return {runner for (runner, _), run in self._executions.items() if run is not None}

    def close(self) -> None:
        """Drops every slot, and holds no weights from here on."""
        for execution in self.executions():
            execution.drop()
        self._latest.clear()

    def owns(self, weights: Iterable[Tensor]) -> bool:
        """Whether a graph that no runner runs has the weights of the session's denoiser."""
        pointers = frozenset(tensor.data_ptr() for tensor in weights)
        return self._runner is None and self._holds(pointers)

    def owns_calls(self, runner: Runner, weights: Iterable[Tensor]) -> bool:
        """Whether a runner's calls with these weights are of the session's denoiser."""
        return self._owns(runner, frozenset(tensor.data_ptr() for tensor in weights))

    def _owns(self, runner: Runner, pointers: frozenset[int]) -> bool:
        if (own := self._runner) is not None:
            return own is runner
        if runner.prebuilt is not None and self._module is not None:
            return False  # a bundle's calls show no weights, which are among those of any module
        return self._holds(pointers)

    @property
    def _runner(self) -> Runner | None:
        """The runner that the session was opened on, by itself or as a loaded bundle's."""
        own: object = getattr(self._target, "runner", self._target)
        return own if isinstance(own, Runner) else None

    @property
    def _module(self) -> nn.Module | None:
        # torch.compile keeps the module it was given under this name.
        module: object = getattr(self._target, "_orig_mod", self._target)
        return module if isinstance(module, nn.Module) else None

    def _holds(self, pointers: frozenset[int]) -> bool:
        module = self._module
        if module is None:
            return True  # a function shows no weights: whatever is called inside is taken for it
        own = {tensor.data_ptr() for tensor in (*module.parameters(), *module.buffers())}
        return pointers - {0} <= own
