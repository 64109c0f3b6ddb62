"""`python -m tests.kube_fake`: a fake API server until Ctrl-C."""

import asyncio
import contextlib
from pathlib import Path

import click

from .server import serve_until_cancelled


@click.command()
@click.option("--port", default=0, help="0 takes a free one.")
@click.option("--kubeconfig", type=click.Path(path_type=Path), default=Path("kubeconfig"), show_default=True)
def main(port: int, kubeconfig: Path) -> None:
    """Serve the Kubernetes API on 127.0.0.1 and write a kubeconfig that leads there."""
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve_until_cancelled(port, kubeconfig))


main()
