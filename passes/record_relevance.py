"""record-relevance: return how much attention each token of an image gets, for a later step.

    rewrite:  return [%y]
       ->     %map = softmax(matmul(slice(%query, ::STEP), %key^T) * scale, float32)
              return [%y, sum(%map)]                  # over sampled queries and heads: [images, N]

Requires  `attention` names a fused self-attention over the tokens, without a mask, with as many
          heads of keys as of queries.
Ensures   one more output, after all others, of float32. The map is made for the sampled queries
          alone: it is [..., M, N], not [..., N, N]. STEP is odd, so that on a grid whose sides are
          even the sample falls into every column.
Error     none of the model's outputs; of the sums, that of the sample.
Source    the map's column sums rank tokens in token reduction for attention (ToCa, Zou et al. 2024,
          section 3.2; Evo-ViT, Xu et al. 2022), there over all queries.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

import torch
from torch import fx

from .base import Pass, PassError, PassReport, aten, emit, return_also
from .tokens import MODULES
from .tokens.alignment import shape_of
from .tokens.layout import read_layout
from .tokens.rules import SDPA, masks_of


@dataclass(frozen=True)
class RecordRelevance(Pass):
    """Writes the relevance of the tokens of one spatial attention.

    Args:
        region: whose attention it is, for the report.
        attention: its node.
        batch: of the dimensions of its queries before tokens and channels, the layout.
        queries: how many are sampled at most; 0 for all. Those of 32 rank nano's tokens as the
            whole map does, with a Spearman correlation of 0.998 in the median of its images
            (tools/measure/relevance.py).
    """

    name: ClassVar[str] = "record-relevance"
    shared: ClassVar[tuple[str, ...]] = MODULES
    region: str
    attention: str
    batch: tuple[str, ...]
    queries: int = 32

    def rewrite(self, gm: fx.GraphModule, report: PassReport) -> None:
        """Return the sums."""
        node = self.find(gm.graph, self.attention, self.region)
        query, key = self._operands(node)
        *sides, tokens, channels = shape_of(query)
        atoms = [atom for axis in read_layout(self.batch) for atom in axis]
        rank = len(sides)
        graph = gm.graph
        with graph.inserting_before(node):
            if 0 < self.queries < tokens:
                query = emit(
                    graph,
                    aten.slice.Tensor,
                    query,
                    rank,
                    0,
                    tokens,
                    sample_step(tokens, self.queries),
                )
            turned = emit(graph, aten.permute.default, key, [*range(rank), rank + 1, rank])
            scores = emit(graph, aten.matmul.default, query, turned)
            scale: Any = node.kwargs.get("scale")
            scores = emit(
                graph, aten.mul.Tensor, scores, channels**-0.5 if scale is None else scale
            )
            weights = emit(graph, aten.softmax.int, scores, -1, torch.float32)
            sums = emit(graph, aten.sum.dim_IntList, weights, [rank])
            parts = [atom.size for atom in atoms]
            sums = emit(graph, aten.reshape.default, sums, [*parts, tokens])
            if heads := [at for at, atom in enumerate(atoms) if not atom.root]:
                sums = emit(graph, aten.sum.dim_IntList, sums, heads)
            rows = prod(atom.size for atom in atoms if atom.root)
            sums = emit(graph, aten.reshape.default, sums, [rows, tokens])
        return_also(graph, sums)
        report.rewrote(node, f"slot {self.region}.relevance")

    def _operands(self, node: fx.Node) -> tuple[fx.Node, fx.Node]:
        query, key = node.args[:2]
        fact, (mask, causal) = "", masks_of(node)
        if node.target is not SDPA:
            fact = f"it is {node.target}"
        elif mask is not None or causal:
            fact = "it is causal" if causal else "it has a mask"
        elif shape_of(query)[:-2] != shape_of(key)[:-2]:
            fact = f"queries are {list(shape_of(query))}, keys {list(shape_of(key))}"
        if fact or not isinstance(query, fx.Node) or not isinstance(key, fx.Node):
            raise PassError(
                self.name,
                f"%{node.name} ({self.region})",
                fact,
                "relevance is read from a plain fused self-attention",
                "Take another region's",
                [node],
            )
        return query, key


def sample_step(tokens: int, queries: int) -> int:
    """Every how manyth token is asked: odd, and such that at most `queries` are."""
    return -(-tokens // queries) | 1
