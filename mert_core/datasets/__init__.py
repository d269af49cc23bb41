"""Labelled public data sets as their users have them on disk, and the demo's proxies: clips, labels, splits.

Each adapter reads one set's official layout and splits; `mert_core.datasets.registry` lists them.
"""
