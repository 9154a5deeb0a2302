"""Crypto prices from Coinbase or a tape, through a durable spool, to Kafka: each event exactly once in the topic."""

__version__ = "0.1.0"
