"""calibrate: plans that are found: reuse is measured, a plan searched, then proven by running."""
