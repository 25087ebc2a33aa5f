"""Masks and tables at rest: places on a disk or in a bucket, who may write, store and repair."""
