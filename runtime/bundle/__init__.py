"""Bundles: engines built ahead of time, read and run without the compiler."""
