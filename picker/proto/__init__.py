"""Envoy's messages, compiled from proto/ by `make proto`. Never edited by hand."""
