"""Task inference: objectives, algorithms, and the slopes that the algorithms use."""
