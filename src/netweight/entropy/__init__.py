"""Stage 6, integers <-> bytes: the only folder that sees a bit."""
