"""Families of tasks: what each does to the images and which classes it has, a family a file."""
