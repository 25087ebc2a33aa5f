"""Folders on a disk or in a bucket, and how bytes get there whole."""
