"""Local services: process groups that end completely, and ``mert up``. Importing it starts nothing."""

from __future__ import annotations
