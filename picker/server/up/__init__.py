"""`picker up`: Envoy, picker and engines on one machine, a trace through them, and a table to watch."""
