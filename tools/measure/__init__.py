"""Measurements behind the tables of results/: each a script that writes its report."""
