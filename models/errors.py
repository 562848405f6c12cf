"""What the models refuse, as exceptions whose text is the explanation."""


class ConfigError(ValueError):
    """A configuration that names a network this package does not implement."""


class InputError(ValueError):
    """A call whose tensors do not fit the network or each other."""


class CheckpointError(ValueError):
    """A weight file that cannot be read, or does not hold the network's weights."""


class ConditioningError(ValueError):
    """Conditioning with a missing key, a wrong shape, or of a stream that nothing samples."""
