"""Training of masks: recipes, batches, blocks of tasks, and the accuracy of a mask."""
