"""The last chapters of the demonstration: what the organisation has a say in, whatever its users allow."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from authserver.agent import Action, IssuedToken, Waiting
from examples.person import Person
from examples.story import Agent, Story, Unexpected, expect
from examples.world import DOMAIN, HELPER, PASSWORD, SCOUT, Operator, instant

_POLICIES = "personal-data"  # of the shipped library: an export takes the agreement of the privacy group
_EXPORT = "personal_data.export"
_SEARCH = "catalog.search"


@dataclass(frozen=True, slots=True)
class Company:
    """The operator, and Grace of the privacy group, who has nothing to do with what Ada buys."""

    story: Story
    operator: Operator
    grace: Person

    def tell(self) -> None:
        """An approval by a group that owns an action, and the kill switch."""
        self.the_privacy_group_is_asked()
        self.the_operator_stops_a_trust_domain()

    def the_privacy_group_is_asked(self) -> None:
        """A policy names the group, the catalogue asks Ada: both must agree, to exactly this."""
        story, shop = self.story, self.story.world.shop.identifier
        story.say.chapter("Personal data leave only when those who answer for them agree")
        story.say.tell(
            "Ada lets Basket Helper export her order history. The company has a policy on exports, too."
        )
        may_export = {"actions": [_EXPORT], "datatypes": ["order_history"], **self._usual(shop)}
        grant = self.operator.delegate(HELPER, may_export).grant
        export = Action(_EXPORT, at=shop, datatypes=("order_history",))
        story.say.asks("Basket Helper", "export Ada's order history from Example Foods")
        story.say.no("not yet: Ada has to agree, and so has somebody of the privacy group")
        agreed: list[str] = []

        def both_agree(told: Waiting) -> None:
            if not agreed:
                agreed.extend(person.approves(told.approval_uri) for person in (story.ada, self.grace))

        token = story.helper.client.token_for(grant, export, waits=both_agree)
        expect(len(agreed) == 2, "somebody was not asked", agreed)
        story.say.tell(
            f"Ada reads “{agreed[0]}” and approves; so does Grace, who is in that group. One would not do."
        )
        story.say.yes(
            f"a token for that one export, bound to the agent's key, for {token.expires_in} seconds"
        )

    def the_operator_stops_a_trust_domain(self) -> None:
        """One row ends whatever the workloads of a trust domain hold, before the command answers."""
        story, shop = self.story, self.story.world.shop.identifier
        story.say.chapter("Something is wrong with example.org: the kill switch")
        may_search = {"actions": [_SEARCH], **self._usual(shop)}
        held = [
            (agent, self.operator.delegate(name, may_search).grant)
            for agent, name in ((story.helper, HELPER), (story.scout, SCOUT))
        ]
        tokens = [self._searches(agent, grant) for agent, grant in held]
        story.say.tell(
            "Both agents hold a delegation and a live token. The operator asks first what would end:"
        )
        would = self.operator.record("revoke", "--trust-domain", DOMAIN, "--dry-run")
        expect(would["agents"] == 2 and would["tokens"] >= 2, "something else would end", would)
        story.say.yes(
            f"{would['delegations']} delegations of {would['agents']} agents, {would['tokens']} live tokens"
        )
        ended = self.operator.record("revoke", "--trust-domain", DOMAIN, "--reason", "a stolen signing key")
        expect(ended["delegations"] == would["delegations"], "another number ended", ended)
        story.say.tell("Then without --dry-run. When it has answered, it is in force:")
        for token in tokens:
            gone = story.introspection.introspect(token.access_token) is None
            expect(gone, "a token still stands", token)
        story.say.no("no token of theirs is active any more")
        for agent, grant in held:
            story.say.asks(agent.name, "a new token for searching")
            refused = agent.is_refused(grant, self._search(), "invalid_request")
            story.say.no(f"{refused.description} ({refused.error})")

    def _searches(self, agent: Agent, grant: str) -> IssuedToken:
        token = agent.gets(grant, self._search())
        if self.story.introspection.introspect(token.access_token) is None:
            raise Unexpected("a new token does not stand", str(token))
        return token

    def _search(self) -> dict[str, object]:
        return {"type": "agent_action", "actions": [_SEARCH], "locations": [self.story.world.shop.identifier]}

    def _usual(self, shop: str) -> dict[str, object]:
        ends = datetime.now(UTC) + timedelta(days=1)
        return {"type": "agent_delegation", "locations": [shop], "expires": instant(ends)}


def prepare(operator: Operator) -> None:
    """Make Grace, and have the shipped policy on personal data decide. Raises `VerbFailed`."""
    grace = ("--username", "grace", "--name", "Grace", "--groups", "privacy", "--password-stdin")
    operator.run("users", "create", *grace, typed=PASSWORD)
    operator.run("policy", "enforce", _POLICIES)
