"""Families of tasks, one per file. A family defines the images and the classes of each task."""
