"""`--transport`, of every command that starts a picker."""

import click

from picker.server.transport import DEFAULT, TRANSPORTS

transport_option = click.option(
    "--transport",
    type=click.Choice(TRANSPORTS),
    default=DEFAULT,
    envvar="PICKER_TRANSPORT",
    show_envvar=True,
    help="Who speaks gRPC on our ports: picker itself, or Google's library.",
)
