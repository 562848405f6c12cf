"""The command `turbo4d calibrate`: its call, nano as the example, the files it writes."""
