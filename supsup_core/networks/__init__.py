"""Fixed networks, whose weights follow from a seed."""
