"""The command line."""

import click

from picker.server.conformance_command import conformance
from picker.server.engine import engine
from picker.server.envoy_command import envoy_config
from picker.server.explain_command import explain
from picker.server.handoff import handoff
from picker.server.replay_command import replay
from picker.server.serve_command import serve
from picker.server.up.command import up
from picker.server.validate_command import validate_engine


@click.group(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
def main() -> None:
    """picker: the endpoint picker that learns."""


main.add_command(conformance)
main.add_command(engine)
main.add_command(envoy_config)
main.add_command(explain)
main.add_command(handoff)
main.add_command(replay)
main.add_command(serve)
main.add_command(up)
main.add_command(validate_engine)

if __name__ == "__main__":
    main()
