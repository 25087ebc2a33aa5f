"""Fixed networks, whose weights follow from a seed; supsup_core/names.py names them."""
