"""Tokens in a graph: how they lie in each value, what each call does to them, and choosing some."""

from . import alignment, choice, layout, rules, trace

MODULES = tuple(module.__name__ for module in (layout, alignment, rules, trace, choice))
