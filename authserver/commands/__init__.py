"""The verbs of `manage.py`, one module for each noun; a module is imported when its verb is called."""

from pkgutil import resolve_name

import click

_VERBS = (
    "serve",
    "migrate",
    "apply",
    "agents",
    "resource-servers",
    "users",
    "api-tokens",
    "delegations",
    "revoke",
    "ledger",
    "keys",
    "audit",
    "policy",
    "evidence",
    "backup",
    "prune",
    "doctor",
    "workload",
)


class _Verbs(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return None
        command: click.Command = resolve_name(f"authserver.commands.{cmd_name.replace('-', '_')}:verb")
        return command

    def invoke(self, ctx: click.Context) -> object:
        from authserver.commands.context import failures_in_words

        with failures_in_words():
            return super().invoke(ctx)


@click.group(cls=_Verbs)
def main() -> None:
    """Start and operate the authorization server.

    AUTHSERVER_CONFIG names the configuration file; config/authserver.toml is the default.
    """
