-- Run once, when the volume is empty. Prefect's server needs pg_trgm.
CREATE DATABASE mlflow;
CREATE DATABASE prefect;
\connect prefect
CREATE EXTENSION IF NOT EXISTS pg_trgm;
