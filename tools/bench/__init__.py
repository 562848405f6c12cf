"""`turbo4d bench`: turbo4d beside what people would use instead, on the same work in one run."""
