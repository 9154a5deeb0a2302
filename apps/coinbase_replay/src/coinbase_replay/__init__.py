"""A stand-in for Coinbase: its REST and WebSocket protocols, played from a recorded or generated tape."""

__version__ = "0.1.0"
