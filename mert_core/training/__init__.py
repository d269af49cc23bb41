"""Pre-training: crops, corruption, objective, the loop, resume states and the Ray wiring."""
