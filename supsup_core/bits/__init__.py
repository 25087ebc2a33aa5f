"""Fast task inference on packed bits, on the CPU. The answers are those of `inference/`."""
