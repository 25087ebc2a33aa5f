"""Training of blocks of tasks: trainers, recipes, batches, and the accuracy of a state."""
