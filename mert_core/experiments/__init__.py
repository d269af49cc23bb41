"""The search over loss weights: Ray Tune with ASHA, judged by a probe. Timing decides in it, so it is no DVC stage."""

from __future__ import annotations
