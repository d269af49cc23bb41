"""Prefect flows: when and where a stage runs. What a stage is stands in ``dvc.yaml`` alone."""
