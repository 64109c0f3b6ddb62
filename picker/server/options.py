"""What `picker serve` was asked to do."""

from dataclasses import dataclass, replace
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """Ports are those of worker 0; worker i listens on each port + i."""

    host: str = "0.0.0.0"
    grpc_port: int = 9002
    grpc_health_port: int = 9003
    metrics_port: int = 9090
    admin_port: int = 9091
    endpoints: str = ""
    endpoints_file: Path | None = None
    config_file: Path | None = None
    policy: str = ""
    pool_name: str = "default"
    secure_serving: bool = True
    cert_path: Path | None = None
    enable_cert_reload: bool = False
    drain_timeout_s: float | None = None
    workers: int = 1
    worker: int = 0
    run_dir: Path | None = None
    log_level: str = "info"
    seed: int | None = None

    def for_worker(self, worker: int) -> "ServeOptions":
        """The same service on this worker's own ports."""
        return replace(
            self,
            worker=worker,
            grpc_port=self.grpc_port + worker,
            grpc_health_port=self.grpc_health_port + worker,
            metrics_port=self.metrics_port + worker,
            admin_port=self.admin_port + worker,
        )
