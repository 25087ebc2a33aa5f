"""What runs inside an actor: plain classes, which know no Ray."""
