"""What was agreed, in plain words, in the language of the request. Nothing is read here but what is passed in."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from babel.dates import format_date, format_datetime
from babel.lists import format_list
from babel.numbers import format_currency

from authserver.delegations.standing import Ending
from authserver.names import shown_name as shown_name  # for templates
from authserver.policy.catalogue import Catalogue
from authserver.policy.delegation_details import DelegationDetails, Limits, Merchants, PeriodRule
from authserver.policy.periods import Period
from authserver.policy.reading import ANY
from authserver.texts import _, locale, ngettext
from authserver.values import EVERY_CATEGORY, CategoryRange, MerchantCategory, Money, NotAValue

_MOST_NAMED = 4  # of a range: more names than that are a list that nobody reads


def amount_in_words(money: Money) -> str:
    """`€62.10`; without decimals where there are none to show."""
    pattern = locale().currency_formats["standard"].pattern
    whole, point, decimals = money.text.partition(".")
    if point and not decimals.strip("0"):
        shape = pattern.replace(".00", "")
        return str(format_currency(whole, money.currency, shape, locale=locale(), currency_digits=False))
    return str(format_currency(money.text, money.currency, locale=locale()))


def day(instant: datetime) -> str:
    """`24 December 2026`."""
    return format_date(instant.date(), "long", locale=locale())


def moment(instant: datetime) -> str:
    """`24 Dec 2026, 14:03 UTC`."""
    return _("%(time)s UTC", time=format_datetime(instant, "medium", locale=locale()).rsplit(":", 1)[0])


def and_list(entries: Iterable[str]) -> str:
    """`a, b and c`."""
    return format_list(list(entries), locale=locale())


def or_list(entries: Iterable[str]) -> str:
    """`a, b or c`."""
    return format_list(list(entries), style="or", locale=locale())


def category_name(text: str) -> str:
    """`Grocery stores and supermarkets` for `5411`; for a range, what is in it."""
    name = _category(text)
    return name[:1].upper() + name[1:]


def _category(text: str) -> str:
    if text == "any":
        return _("any kind of shop")
    if (known := _categories().get(text)) is not None:
        return known
    try:
        return _titles(CategoryRange.parse(text))
    except NotAValue:
        return text


def _titles(categories: CategoryRange) -> str:
    named = []
    for code in range(categories.low, categories.high + 1):
        try:
            category = MerchantCategory.parse(f"{code:04}")
        except NotAValue:
            continue
        named.append(_categories().get(category.code, _lower(_sentence(category.title))))
    more = len(named) - _MOST_NAMED
    if more > 1:
        named = [*named[:_MOST_NAMED], ngettext("%(number)s more kind", "%(number)s more kinds", more)]
    return and_list(dict.fromkeys(named))


def _sentence(title: str) -> str:
    """`Drug Stores and Pharmacies` as a sentence has it."""
    words = title.split(" ")
    return " ".join([words[0], *(word if word.isupper() else word.lower() for word in words[1:])])


def country_name(text: str) -> str:
    """`Netherlands` for `NL`; groups by what they are called."""
    if text == "any":
        return _("any country")
    return _countries().get(text) or str(locale().territories.get(text, text))


def _countries() -> dict[str, str]:
    """Those that a sentence has with an article, and groups."""
    return {
        "NL": _("the Netherlands"),
        "GB": _("the United Kingdom"),
        "US": _("the United States"),
        "AE": _("the United Arab Emirates"),
        "PH": _("the Philippines"),
        "DO": _("the Dominican Republic"),
        "EU": _("the European Union"),
        "EEA": _("the European Economic Area"),
    }


def datatype_name(text: str) -> str:
    """`shipping address` for `shipping_address`."""
    return _datatypes().get(text, text.replace("_", " "))


def action_name(text: str, catalogue: Catalogue) -> str:
    """`Pay` for `payment.finalize`: the catalogue's title."""
    entry = catalogue.get(text)
    return _(entry.title) if entry else text


def period_name(period: Period) -> str:
    """`day` for `P1D`, `3 days` for `P3D`: what follows `each`."""
    if period.months:
        return _("month") if period.months == 1 else _("year")
    if period.hours % 24:
        return ngettext("hour", "%(number)s hours", period.hours)
    if period.hours == 7 * 24:
        return _("week")
    return ngettext("day", "%(number)s days", period.hours // 24)


def rule_in_words(rule: PeriodRule) -> str:
    """`€40 each day at restaurants`."""
    amount, period = amount_in_words(rule.amount), period_name(rule.period)
    if rule.categories:
        return _(
            "%(amount)s each %(period)s at %(shops)s",
            amount=amount,
            period=period,
            shops=or_list(_category(one.text) for one in rule.categories),
        )
    if rule.ids:
        return _(
            "%(amount)s each %(period)s at %(shops)s",
            amount=amount,
            period=period,
            shops=or_list(rule.ids),
        )
    return _("%(amount)s each %(period)s", amount=amount, period=period)


def in_plain_words(
    details: DelegationDetails, agent: str | None = None, catalogue: Catalogue | None = None
) -> str:
    """A delegation as one or two sentences: who may do what, up to how much, where, until when, and when it asks."""
    names = [action_name(one, catalogue) if catalogue else one for one in details.actions]
    may = _("%(agent)s may %(actions)s", agent=agent or _("The agent"), actions=and_list(map(_lower, names)))
    where = _merchants_in_words(details.merchants)
    sentences = [" ".join([may, *where, _("until %(day)s", day=day(details.expires))])]
    if details.limits:
        sentences.append(_limits_in_words(details.limits))
    if details.datatypes:
        sentences.append(_("It may see %(datatypes)s", datatypes=datatypes_in_words(details.datatypes)))
    if details.approval and details.approval.above:
        amount = amount_in_words(details.approval.above)
        sentences.append(_("It asks you above %(amount)s", amount=amount))
    return " ".join(f"{sentence}." for sentence in sentences)


def headline(details: DelegationDetails, agent: str, catalogue: Catalogue) -> str:
    """The one sentence to be understood first: how much an agent may spend where until when; else what it may do."""
    until = _("until %(day)s", day=day(details.expires))
    if details.limits is not None and "debit" in _budgets(details, catalogue):
        spend = _(
            "%(agent)s may spend up to %(each)s at a time and %(total)s in all",
            agent=agent,
            each=amount_in_words(details.limits.per_action),
            total=amount_in_words(details.limits.total),
        )
        return " ".join([spend, *_merchants_in_words(details.merchants), until]) + "."
    may = _("%(agent)s may %(actions)s", agent=agent, actions=_actions_in_words(details, catalogue))
    harmless = not _budgets(details, catalogue) & {"debit", "check"}
    return f"{may} {until}." + (" " + _("It cannot spend your money.") if harmless else "")


def facts(details: DelegationDetails, shop: Callable[[str], str], catalogue: Catalogue) -> Iterable[str]:
    """The rest, a line each. `shop` says what a merchant's id is called."""
    if details.limits is not None and "debit" in _budgets(details, catalogue):
        yield _("It may %(actions)s.", actions=_actions_in_words(details, catalogue))
        for rule in details.limits.per_period:
            yield _("At most %(rule)s.", rule=rule_in_words(rule))
        if details.limits.count is not None:
            count = details.limits.count
            yield ngettext("At most one payment.", "At most %(number)s payments.", count)
    if details.datatypes:
        yield _("It may see %(datatypes)s.", datatypes=datatypes_in_words(details.datatypes))
    yield from bounds(details, shop)


def bounds(details: DelegationDetails, shop: Callable[[str], str]) -> Iterable[str]:
    """What the sentences leave out: single shops, what is excluded, and whether it may hand on."""
    merchants = details.merchants
    if merchants and merchants.ids:
        yield _("Only these shops: %(shops)s.", shops=and_list(map(shop, merchants.ids)))
    if merchants and (excluded := merchants.excluded):
        never = [
            *(_category(entry.text) for entry in excluded.categories),
            *map(country_name, excluded.countries),
            *map(shop, excluded.ids),
        ]
        if never:
            yield _("Never: %(shops)s.", shops=and_list(never))
    if details.redelegation_depth:
        yield _("It may hand on a part of this to other agents, within the same limits.")


def _budgets(details: DelegationDetails, catalogue: Catalogue) -> set[str]:
    return {entry.budget for name in details.actions if (entry := catalogue.get(name))}


def _actions_in_words(details: DelegationDetails, catalogue: Catalogue) -> str:
    return and_list(_lower(action_name(one, catalogue)) for one in details.actions)


def _limits_in_words(limits: Limits) -> str:
    said = [
        _(
            "It may spend up to %(each)s at a time and %(total)s in all",
            each=amount_in_words(limits.per_action),
            total=amount_in_words(limits.total),
        )
    ]
    rules = (_("at most %(rule)s", rule=rule_in_words(rule)) for rule in limits.per_period)
    return "; ".join([*said, *rules])


def _merchants_in_words(merchants: Merchants | None) -> list[str]:
    if merchants is None:
        return []
    return [
        _(
            "at %(shops)s in %(countries)s",
            shops=categories_in_words(merchants.categories),
            countries=or_list(map(country_name, merchants.countries)),
        )
    ]


def categories_in_words(categories: Sequence[CategoryRange]) -> str:
    """The kinds of shops, named."""
    if tuple(categories) == (EVERY_CATEGORY,):
        return _("any kind of shop")
    return or_list(_category(one.text) for one in categories)


def datatypes_in_words(datatypes: Sequence[str]) -> str:
    """The kinds of personal data, named."""
    if tuple(datatypes) == ANY:
        return _("any of your data")
    return and_list(map(datatype_name, datatypes))


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:] if not text[:2].isupper() else text


def _datatypes() -> dict[str, str]:
    return {
        "profile": _("your whole profile"),
        "name": _("your name"),
        "birth_date": _("your date of birth"),
        "contact": _("how to reach you"),
        "email": _("your e-mail address"),
        "phone": _("your telephone number"),
        "addresses": _("your addresses"),
        "shipping_address": _("your delivery address"),
        "billing_address": _("your billing address"),
        "preferences": _("your preferences"),
        "order_history": _("your orders"),
        "payment_instrument": _("your cards and accounts, masked"),
    }


def _categories() -> dict[str, str]:
    return {
        "3000-3999": _("airlines, car rental and hotels"),
        "4111": _("local transport"),
        "4112": _("railways"),
        "4121": _("taxis"),
        "4511": _("airlines"),
        "4722": _("travel agencies"),
        "4814": _("telephone services"),
        "4899": _("television and streaming"),
        "5200": _("home improvement shops"),
        "5311": _("department stores"),
        "5411": _("grocery stores and supermarkets"),
        "5422": _("butchers"),
        "5441": _("sweet shops"),
        "5451": _("dairy shops"),
        "5462": _("bakeries"),
        "5499": _("food shops"),
        "5541": _("petrol stations"),
        "5651": _("clothing shops"),
        "5661": _("shoe shops"),
        "5691": _("clothing shops"),
        "5712": _("furniture shops"),
        "5732": _("electronics shops"),
        "5811": _("caterers"),
        "5812": _("restaurants"),
        "5813": _("bars and pubs"),
        "5814": _("fast food"),
        "5811-5814": _("restaurants, bars and catering"),
        "5815-5818": _("digital goods"),
        "5912": _("pharmacies"),
        "5942": _("bookshops"),
        "5945": _("toy shops"),
        "5977": _("cosmetics shops"),
        "7011": _("hotels"),
        "7832": _("cinemas"),
        "7995": _("gambling"),
    }


def _titles_of_actions() -> tuple[str, ...]:
    """The titles of the shipped catalogue, so that they are among the texts to be translated."""
    return (
        _("Search the catalogue"),
        _("Change the basket"),
        _("Place an order"),
        _("Pay"),
        _("Renew a subscription"),
        _("Pay with a stored card or account"),
        _("Change an order's address"),
        _("Ask for money back"),
        _("Read personal data"),
        _("Export personal data"),
    )


def browser_name(user_agent: str) -> str:
    """`Firefox on Linux`, as far as a browser says what it is."""
    browsers = (("Edg/", "Edge"), ("OPR/", "Opera"), ("Firefox/", "Firefox"), ("Chrome/", "Chrome"))
    systems = (
        ("iPhone", "iPhone"),
        ("iPad", "iPad"),
        ("Android", "Android"),
        ("Windows", "Windows"),
        ("Mac OS X", "macOS"),
        ("Linux", "Linux"),
    )
    browser = next((name for sign, name in (*browsers, ("Safari/", "Safari")) if sign in user_agent), None)
    system = next((name for sign, name in systems if sign in user_agent), None)
    if browser is None:
        return _("A browser")
    return _("%(browser)s on %(system)s", browser=browser, system=system) if system else browser


def rule_scope(rule: PeriodRule) -> str:
    """`Each day at restaurants`: what a limit in time is for."""
    period = period_name(rule.period)
    if rule.categories:
        shops = or_list(_category(one.text) for one in rule.categories)
        return _("Each %(period)s at %(shops)s", period=period, shops=shops)
    if rule.ids:
        return _("Each %(period)s at %(shops)s", period=period, shops=or_list(rule.ids))
    return _("Each %(period)s", period=period)


def ending_in_words(ended: Ending) -> str:
    """Why a delegation is over, in a word or two."""
    said = {
        "delegation.revoked": _("Stopped"),
        "delegation.expired": _("Expired"),
        "delegation.agent_disabled": _("Agent blocked"),
        "task.ended": _("Task over"),
    }
    return said.get(ended.rule, _("Over"))
