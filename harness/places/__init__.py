"""Paths of run directories (on a disk or in object storage), and durable writes of files."""
