"""NVIDIA Triton Inference Server: a bundle as a model of its Python backend.

A sequence of requests is a sampling run: each request is its next step, and its slots live in the
server between them. The request that starts a sequence brings all inputs; later ones may leave out
the conditioning, which stays what it was. Sequences may interleave.
"""

from __future__ import annotations

import contextvars
import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from turbo4d.runtime.bundle.denoiser import BundleDenoiser
from turbo4d.runtime.bundle.load import load
from turbo4d.runtime.errors import SessionError, Turbo4DError
from turbo4d.runtime.session import Session, session

START, END, CORRELATION = "START", "END", "CORRID"


class Run:
    """One sequence: a session that stays open from its first request to its last.

    Args:
        denoiser: of the bundle.
    """

    def __init__(self, denoiser: BundleDenoiser) -> None:
        self._denoiser = denoiser
        self._step = 0
        self._kept: dict[str, Tensor] = {}
        # Sessions are told apart by context, so that the runs of one thread may interleave.
        self._context = contextvars.copy_context()
        self._session: Session = session(denoiser.runner, plan=denoiser.plan)
        self._context.run(self._session.__enter__)

    def step(self, given: Mapping[str, Tensor]) -> Sequence[Tensor]:
        """The next step.

        Args:
            given: inputs by name; conditioning that is left out is that of the first step.

        Raises:
            SessionError: an input is missing, or the plan has no further step.
        """
        signature = self._denoiser.manifest.signature
        if self._step >= self._denoiser.plan.steps:
            raise SessionError(
                f"the sequence is past step {self._denoiser.plan.steps - 1}, the plan's last; end "
                "it, and start another."
            )
        if not self._kept:
            names = [signature.names[at] for at in signature.conditioning]
            self._kept = {name: given[name].clone() for name in names if name in given}
        inputs = {**self._kept, **given}
        if missing := [name for name in signature.names if name not in inputs]:
            raise SessionError(
                f"step {self._step} of the sequence lacks input {missing[0]!r}; the request that "
                "starts a sequence brings all, later ones all but the conditioning."
            )
        outputs = self._context.run(self._called, [inputs[name] for name in signature.names])
        self._step += 1
        return outputs

    def close(self) -> None:
        """Lets go of the slots."""
        self._context.run(self._session.__exit__, None, None, None)

    def _called(self, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        self._session.step(self._step)
        with torch.no_grad():
            return self._denoiser.runner(*inputs)


class TritonPythonModel:
    """What Triton's Python backend loads and calls."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load the bundle in which the model repository lies, or the one that "bundle" names.

        Args:
            args: as the server gives them.

        Raises:
            BundleError: the bundle is damaged, or cannot run here.
        """
        parameters = json.loads(args["model_config"]).get("parameters", {})
        named = parameters.get("bundle", {}).get("string_value", "")
        folder = Path(named) if named else Path(args["model_repository"]).parent.parent
        on_gpu = args.get("model_instance_kind") == "GPU"
        device = f"cuda:{args.get('model_instance_device_id', '0')}" if on_gpu else "cpu"
        self._denoiser = load(folder, device=device)
        self._denoiser.open()
        self._runs: dict[int, Run] = {}
        self._server: Any = import_module("triton_python_backend_utils")

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Carry out one step for each request.

        Args:
            requests: of any sequences.
        """
        return [self._answered(request) for request in requests]

    def finalize(self) -> None:
        """Close what is open."""
        for run in self._runs.values():
            run.close()
        self._runs.clear()

    def _answered(self, request: Any) -> Any:
        server = self._server
        try:
            outputs = self._stepped(request)
        except Turbo4DError as error:
            return server.InferenceResponse(output_tensors=[], error=server.TritonError(str(error)))
        return server.InferenceResponse(
            output_tensors=[
                server.Tensor.from_dlpack(f"output_{at}", value.contiguous())
                for at, value in enumerate(outputs)
            ]
        )

    def _stepped(self, request: Any) -> Sequence[Tensor]:
        started, ended, name = (self._control(request, each) for each in (START, END, CORRELATION))
        if started:
            self._close(name)
            self._runs[name] = Run(self._denoiser)
        if name not in self._runs:
            raise SessionError(
                f"sequence {name} is not open; its first request must start it, and none may fail."
            )
        try:
            outputs = self._runs[name].step(self._given(request))
        except Turbo4DError:
            self._close(name)
            raise
        if ended:
            self._close(name)
        return outputs

    def _close(self, name: int) -> None:
        if (run := self._runs.pop(name, None)) is not None:
            run.close()

    def _given(self, request: Any) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for name in self._denoiser.manifest.signature.names:
            tensor = self._server.get_input_tensor_by_name(request, name)
            if tensor is not None:
                found[name] = torch.from_dlpack(tensor.to_dlpack()).to(self._denoiser.device)
        return found

    def _control(self, request: Any, name: str) -> int:
        tensor = self._server.get_input_tensor_by_name(request, name)
        return int(tensor.as_numpy().reshape(-1)[0])
