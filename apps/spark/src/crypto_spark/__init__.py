"""Spark Structured Streaming application of the lab: Kafka to PostgreSQL."""
