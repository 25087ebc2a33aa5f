"""How long tests wait for other processes."""

# A limit only ends a test that would never end. With ten times the usual load, a commit that takes
# seconds takes minutes.
PATIENCE = 900.0  # seconds
