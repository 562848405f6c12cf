"""The library of compiled segments: equal text is compiled once in a process, and kept.

A segment's text does not name the model, the variant or the place it comes from, so all of them
share it. Between processes Inductor's own caches on disk keep what was compiled.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence

import torch
from torch import fx
from turbo4d.compiler.errors import LowerError
from turbo4d.compiler.show import graph_text

from .compat import Compiled, Form, compile_with_inductor, inductor_settings


class SegmentLibrary:
    """Compiled segments by their text; any number of threads may ask.

    A compiled segment is a function of its inputs and holds no tensor, so it is kept for good.
    """

    def __init__(self) -> None:
        self._held: dict[str, Compiled] = {}
        # One at a time: Inductor's configuration and its tables are global to the process.
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._held)

    def get(self, graph: fx.Graph, inputs: Sequence[Form]) -> Compiled:
        """A segment's graph, compiled if no equal one was.

        Args:
            graph: with numbered names, as `segments.split` gives it.
            inputs: for each placeholder, what it will be given.

        Raises:
            LowerError: Inductor refuses the graph, or the C++ compiler its code.
        """
        text = key_text(graph, inputs)
        # What is held stays, so that a thread need not wait while another compiles.
        if (held := self._held.get(text)) is not None:
            return held
        with self._lock:
            if text not in self._held:
                module = fx.GraphModule(torch.nn.Module(), graph, class_name="Segment")
                try:
                    self._held[text] = compile_with_inductor(module, inputs)
                except RuntimeError as error:  # torch's own are all of that type
                    raise LowerError(_refusal(graph, error)) from error
            return self._held[text]


LIBRARY = SegmentLibrary()
"""Of this process."""


def key_text(graph: fx.Graph, inputs: Sequence[Form]) -> str:
    """sha256 of all that a compiled segment depends on."""
    forms = "\n".join(f"{form.strides} {form.device}" for form in inputs)
    text = f"{graph_text(graph)}{forms}\n{inductor_settings()}"
    return hashlib.sha256(text.encode()).hexdigest()


def _refusal(graph: fx.Graph, error: RuntimeError) -> str:
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    last = [node for node in graph.nodes if node.op == "call_function"][-1]
    return (
        f"lowering 'inductor' could not compile a segment of {len(graph.nodes)} nodes that ends "
        f"with %{last.name}: {type(error).__name__}: {said.rstrip('.')}. Choose lowering 'eager'."
    )
