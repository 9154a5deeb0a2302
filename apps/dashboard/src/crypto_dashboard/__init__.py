"""The lab's dashboard: one page, served from one shared snapshot of PostgreSQL and Prometheus."""

__version__ = "0.1.0"
