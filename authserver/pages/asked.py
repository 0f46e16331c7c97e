"""What an agent asks for, in one sentence of facts that this server checked (threats A83)."""

from authserver.my_approvals import Asked
from authserver.pages.words import (
    action_name,
    amount_in_words,
    category_name,
    country_name,
    datatypes_in_words,
    shown_name,
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


def _seller(asked: Asked) -> str:
    """Who gets the money. A name is shown where it is registered here; one that an agent says is nobody's name."""
    place, merchant = shown_name(asked.place.name).text, asked.action.merchant or Merchant()
    registered = asked.place.merchant
    if registered is not None:
        parts = [shown_name(registered.name).text if registered.name else place]
    elif merchant.id is not None:
        parts = [_("seller %(id)s on %(place)s", id=merchant.id, place=place)]
    else:
        parts = [_("a seller on %(place)s", place=place)]
    if merchant.category is not None:
        parts.append(_lower(category_name(merchant.category.code)))
    if merchant.country is not None:
        parts.append(country_name(merchant.country.code))
    return ", ".join(parts)


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:] if not text[:2].isupper() else text
