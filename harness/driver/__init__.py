"""The one process that writes: it submits work units and keeps what comes of them."""
