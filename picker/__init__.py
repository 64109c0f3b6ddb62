"""The endpoint picker that learns."""
