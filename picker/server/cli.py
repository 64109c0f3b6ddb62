"""The command line. A command's modules are loaded when it is called: an engine needs nothing that a replay does."""

from importlib import import_module

import click

_COMMANDS = {
    "conformance": "conformance_command",
    "engine": "engine",
    "envoy-config": "envoy_command",
    "explain": "explain_command",
    "handoff": "handoff",
    "replay": "replay_command",
    "serve": "serve_command",
    "up": "up.command",
    "validate-engine": "validate_command",
}
"""The module in picker.server of each; its function there has the same name, in Python's spelling."""


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if (module := _COMMANDS.get(cmd_name)) is None:
            return None
        command: click.Command = getattr(import_module(f"picker.server.{module}"), cmd_name.replace("-", "_"))
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
def main() -> None:
    """picker: the endpoint picker that learns."""


if __name__ == "__main__":
    main()
