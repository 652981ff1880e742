"""Networks that detect objects, one file per family."""
