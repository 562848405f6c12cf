"""Bundles: engines built ahead of time, written and verified."""
