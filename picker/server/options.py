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
    state_dir: Path | None = None

    def port_conflict(self) -> str:
        """What is wrong with the ports of all workers together; empty if nothing is."""
        bases = {
            "--grpc-port": self.grpc_port,
            "--grpc-health-port": self.grpc_health_port,
            "--metrics-port": self.metrics_port,
            "--admin-port": self.admin_port,
        }
        taken: dict[int, str] = {}
        for name, first in bases.items():
            for port in range(first, first + self.workers):
                if port > 65535:
                    return f"{name} {first} leaves no room for {self.workers} workers"
                if port in taken:
                    return f"port {port} is wanted by {taken[port]} and by {name}: each takes {self.workers} in a row"
                taken[port] = name
        return ""

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
