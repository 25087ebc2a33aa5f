"""The mask store of a run: chunks, log, repair, and the lock of the writer."""
