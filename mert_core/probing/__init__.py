"""Probing: what a frozen encoder knows."""
