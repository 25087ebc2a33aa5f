"""The workers, which run inside actors: plain classes that do not use Ray."""
