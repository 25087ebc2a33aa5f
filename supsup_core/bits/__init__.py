"""Task inference on packed bits on the CPU: the same answers, sooner."""
