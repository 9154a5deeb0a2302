"""The lab's Kafka pages: topics, partitions, messages, consumer groups and their lag, to look at only."""

__version__ = "0.1.0"
