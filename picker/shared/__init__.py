"""Memory that the processes of one picker share: one writer to each part of it, readers that never wait. Pure."""
