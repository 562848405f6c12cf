"""An S-C-M module carried out in plain Python, block by block, under rows that prune.

Knows nothing of graphs, passes or engines. A pruned block is computed whole, and then all but the
tokens that matter are taken from what was added when it was last computed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from turbo4d.models.geometry import Geometry
from turbo4d.models.scm import SCMModule
from turbo4d.passes.record_relevance import RecordRelevance, sample_step
from turbo4d.runtime.action import Action

QUERIES = RecordRelevance.queries
# Which axis of (branches, frames, views) each kind attends over.
OVER = {"spatial": None, "camera": 2, "motion": 1}


class PlainSCM:
    """One stream; to be called in place of the module.

    Args:
        module: whose blocks run.
        prefix: of its regions' names.
    """

    def __init__(self, module: SCMModule, prefix: str) -> None:
        self.module = module
        self.prefix = prefix
        self.row: Mapping[str, Action] = {}
        self.slots: dict[str, Tensor] = {}
        self.relevance: Tensor | None = None
        self.kept: dict[str, tuple[Tensor, Tensor, Tensor, Tensor]] = {}

    def __call__(
        self, x: Tensor, emb: Tensor, context: Tensor, cond_view: Tensor, geometry: Geometry
    ) -> Tensor:
        module = self.module
        height, width = x.shape[-2:]
        fresh: dict[str, Tensor] = {}

        def block(kind: str, entry: Tensor, run: Callable[[Tensor], Tensor]) -> Tensor:
            made = run(entry)
            action = self.row.get(f"{self.prefix}.{kind}")
            if action is None:
                fresh[kind] = made - entry
                return made
            rest = entry + self.slots[kind]
            if action.keep is None:
                return rest
            mask = self._chosen(kind, action.keep, geometry).view(*entry.shape[:-1], 1)
            after = torch.where(mask, made, rest)
            self.kept[kind] = (mask, made, rest, after)
            return after

        tokens = module.proj_in(module.norm(x).flatten(2).transpose(1, 2))
        per_image = context.flatten(0, 1)[:, None].expand(-1, geometry.views, -1).flatten(0, 1)
        first = module.transformer_blocks[0]
        matters = _relevance(first, tokens, height * width)
        tokens = block("spatial", tokens, lambda t: first(t, per_image[:, None]))
        grid = tokens.view(*geometry, height * width, module.channels)
        mixer = module.time_mixer_motion or module.time_mixer
        view = torch.nn.functional.interpolate(cond_view, (height, width), mode="bilinear")
        grid = block(
            "camera", grid, lambda g: module.time_mixer(g, module._camera(g, emb, context))
        )
        grid = block("motion", grid, lambda g: mixer(g, module._motion(g, view)))
        if "spatial" in fresh:
            self.relevance = matters
        self.slots |= fresh
        tokens = module.proj_out(grid.flatten(0, 2))
        return x + tokens.transpose(1, 2).reshape(x.shape)

    def _chosen(self, kind: str, keep: float, geometry: Geometry) -> Tensor:
        """[branches, frames, views, N]: the tokens that matter most, of equal ones the first."""
        assert self.relevance is not None
        matters = self.relevance.view(*geometry, -1)
        if (over := OVER[kind]) is not None:
            matters = matters.mean(over, keepdim=True).expand(*geometry, -1)
        tokens = matters.shape[-1]
        mask = torch.zeros(matters.shape, dtype=torch.bool)
        for row, marks in zip(matters.flatten(0, 2), mask.view(-1, tokens), strict=True):
            ranked = sorted(range(tokens), key=lambda at: (-float(row[at]), at))
            marks[ranked[: round(keep * tokens)]] = True
        return mask


def _relevance(block: Any, tokens: Tensor, count: int) -> Tensor:
    attend = block.attn1
    query, key = (
        attend._split(project(block.norm1(tokens))) for project in (attend.to_q, attend.to_k)
    )
    if count > QUERIES:
        query = query[:, :, :: sample_step(count, QUERIES)]
    weights = (query @ key.mT * query.shape[-1] ** -0.5).softmax(-1, torch.float32)
    return weights.sum((1, 2))
