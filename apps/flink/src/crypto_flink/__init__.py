"""The Flink side of the lab: the streaming job and the supervisor that keeps it running."""
