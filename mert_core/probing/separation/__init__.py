"""Separation of a mixture into stems by Open-Unmix-style heads on frozen features."""
