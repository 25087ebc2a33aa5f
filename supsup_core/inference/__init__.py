"""Task inference: objectives, algorithms, and the slopes that they read."""
