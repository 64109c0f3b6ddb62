"""Shells and wiring: gRPC, HTTP, processes, configuration, the command line. The only room that knows all others."""
