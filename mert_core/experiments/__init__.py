"""What is built of runs: the DAG that follows from ``params.yaml``, and the search over loss weights with Ray Tune."""
