"""Suite `peers`: packages of others on models that they cover, beside turbo4d."""
