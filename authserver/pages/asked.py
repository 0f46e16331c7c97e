"""What an agent asks for, in one sentence of facts that this server checked (threats A83)."""

from authserver.actors.resource_servers import ResourceServer
from authserver.my_approvals import Asked, ShownRule
from authserver.names import shown_name
from authserver.pages.words import (
    action_name,
    amount_in_words,
    category_name,
    country_name,
    datatypes_in_words,
)
from authserver.policy.catalogue import Catalogue
from authserver.policy.details import Merchant
from authserver.texts import _


def sentence(asked: Asked, catalogue: Catalogue) -> str:
    """`Pay €62.10 to Example Foods, grocery stores and supermarkets, the Netherlands`."""
    action, title = asked.action, action_name(asked.action.action, catalogue)
    seller = _seller(asked)
    if action.amount is not None:
        amount = amount_in_words(action.amount)
        if action.action == "payment.finalize":
            return _("Pay %(amount)s to %(seller)s", amount=amount, seller=seller)
        return _("%(action)s: %(amount)s, %(seller)s", action=title, amount=amount, seller=seller)
    place = shown_name(asked.place.name).text
    if action.datatypes:
        data = datatypes_in_words(action.datatypes)
        return _("%(action)s at %(place)s: %(datatypes)s", action=title, place=place, datatypes=data)
    return _("%(action)s at %(place)s", action=title, place=place)


def rule_in_words(shown: ShownRule, catalogue: Catalogue) -> str:
    """`Pay: up to €70 at a time, Example Foods`."""
    return _(
        "%(action)s: up to %(amount)s at a time, %(seller)s",
        action=action_name(shown.rule.action, catalogue),
        amount=amount_in_words(shown.rule.amount),
        seller=_named(shown.place, shown.rule.merchant_id),
    )


def _named(place: ResourceServer, merchant_id: str | None) -> str:
    """Who gets the money. A name is shown where it is registered here; one that an agent says is nobody's name."""
    name = shown_name(place.name).text
    if place.merchant is not None:
        return shown_name(place.merchant.name).text if place.merchant.name else name
    if merchant_id is not None:
        return _("seller %(id)s on %(place)s", id=merchant_id, place=name)
    return _("a seller on %(place)s", place=name)


def _seller(asked: Asked) -> str:
    merchant = asked.action.merchant or Merchant()
    parts = [_named(asked.place, merchant.id)]
    if merchant.category is not None:
        parts.append(_lower(category_name(merchant.category.code)))
    if merchant.country is not None:
        parts.append(country_name(merchant.country.code))
    return ", ".join(parts)


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:] if not text[:2].isupper() else text
