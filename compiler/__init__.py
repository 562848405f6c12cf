"""From a captured denoiser to one lowered engine per kind of step."""
