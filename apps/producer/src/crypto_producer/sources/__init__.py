"""The sources: each reads prices from somewhere and hands events to the intake."""
