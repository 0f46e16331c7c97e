"""Every verb says what it is for."""

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from authserver.commands import main

# Contract §11, without the verbs of parts that are not there yet.
VERBS = """
serve
migrate
apply
agents create
agents list
agents disable
resource-servers create
resource-servers renew-secret
resource-servers list
users create
users link
users list
api-tokens create
api-tokens list
api-tokens revoke
delegations create
delegations list
delegations show
delegations revoke
revoke
ledger check
keys list
keys rotate
keys revoke
keys reencrypt
audit export
audit heads
audit keys
audit prove
audit verify
audit seal
audit restore
policy check
policy test
policy list
policy draft
policy observe
policy enforce
policy simulate
policy explain
evidence
backup
prune
doctor
workload create-domain
workload assertion
"""
# What prints no record: processes, a schema, and a token that is a text of its own.
NO_JSON = {"serve", "migrate", "workload assertion"}


def verbs(group: click.Command = main, *above: str) -> Iterator[tuple[str, click.Command]]:
    """All verbs with their nouns."""
    if not isinstance(group, click.Group):
        yield " ".join(above), group
        return
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield from verbs(command, *above, name)


def test_the_verbs_are_those_of_the_contract() -> None:
    assert sorted(name for name, _ in verbs()) == sorted(VERBS.strip().split("\n"))


@pytest.mark.parametrize("name", VERBS.strip().split("\n"))
def test_every_verb_has_help_with_a_sentence_for_itself_and_each_option(name: str) -> None:
    result = CliRunner().invoke(main, [*name.split(" "), "--help"])
    assert result.exit_code == 0
    command = dict(verbs())[name]
    assert command.help is not None
    assert len(command.help.split()) >= 5
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name


def test_every_verb_that_prints_records_takes_json() -> None:
    without = {name for name, command in verbs() if not any("--json" in p.opts for p in command.params)}
    assert without == NO_JSON


def test_a_verb_that_there_is_not_is_an_error_of_usage() -> None:
    result = CliRunner().invoke(main, ["reign"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "No such command 'reign'" in result.stderr
