"""What operators see: Prometheus metrics and structured logs. Read-only: nothing here decides anything."""
