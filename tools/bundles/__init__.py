"""The commands of bundles: build, run, verify."""
