"""Stage 2, who matters: estimates of the weight importance matrix."""
