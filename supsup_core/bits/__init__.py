"""Fast task inference on packed bits, on the CPU. It gives the same answers as inference/."""
