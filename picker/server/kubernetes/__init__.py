"""The watch's connection to an API server. Everything that it means is decided in `picker.pool.kube`."""
