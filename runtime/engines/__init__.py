"""One file per vendor; each is the only one that imports its vendor's library."""
