# MLflow's server with the drivers for Postgres and for an S3 store. Keep the version that pyproject.toml pins.
FROM python:3.11-slim
RUN pip install --no-cache-dir mlflow==3.17.2 psycopg2-binary boto3
EXPOSE 5000
