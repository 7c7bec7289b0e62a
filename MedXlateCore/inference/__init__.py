"""From prepared volumes to a synthetic one: inputs, slice-wise prediction, memory, sessions."""
