"""Stage 5, tensor <-> integers: one file a method, and the list of what there is."""
