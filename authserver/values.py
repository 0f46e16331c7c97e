"""The values that details are made of: each frozen, each with one parser that takes it or says why not."""

import csv
import ipaddress
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Self

import iso4217
import pycountry


class NotAValue(ValueError):
    """A value that was refused.

    `reason` is ASCII without quotation marks, fit for an `error_description`, and never repeats what was sent;
    `member` is the path of the member that holds the value, empty where the value stands alone.
    """

    def __init__(self, reason: str, member: str = "") -> None:
        super().__init__(f"{member} {reason}" if member else reason)
        self.reason = reason
        self.member = member

    def inside(self, member: str) -> "NotAValue":
        """The same, told from outside: the value stands in `member`."""
        return NotAValue(self.reason, f"{member}.{self.member}" if self.member else member)


# --- money --------------------------------------------------------------------------------------------------------

# The current ISO 4217 list. Codes without an exponent (XXX, XTS, precious metals, units of account) are no money
# that anybody can be charged, and historic codes are not on the list.
_EXPONENTS: Mapping[str, int] = {
    code: int(exponent)
    for code, row in iso4217.raw_table.items()
    if code and (exponent := str(row["CcyMnrUnts"])).isdigit()
}
_AMOUNT = re.compile(r"(0|[1-9][0-9]{0,11})(?:\.([0-9]+))?")


@dataclass(frozen=True, slots=True)
class Money:
    """An amount of one currency.

    `currency` is a current ISO 4217 code, `minor` the amount in its minor units (cents, yen, fils). What was parsed
    is positive and below 10^12 major units, so it fits 64 bits in every currency; what is left of a limit may be 0.
    """

    currency: str
    minor: int

    @classmethod
    def parse(cls, currency: object, value: object) -> Self:
        """Read a currency code and a decimal string such as `"42.50"` (contract §4); a JSON number is refused."""
        exponent = _EXPONENTS.get(parse_currency(currency))
        match = _AMOUNT.fullmatch(value) if isinstance(value, str) else None
        if match is None or exponent is None:
            raise NotAValue("must be a string of ASCII digits such as 42.50, below 1000000000000")
        fraction = match[2] or ""
        if len(fraction) > exponent:
            raise NotAValue(f"has more than the {exponent} decimals of its currency")
        minor = int(match[1] + fraction.ljust(exponent, "0"))
        if not minor:
            raise NotAValue("must be more than zero")
        return cls(str(currency), minor)

    @property
    def text(self) -> str:
        """The amount with all decimals of its currency, `"42.50"`."""
        exponent = _EXPONENTS[self.currency]
        if not exponent:
            return str(self.minor)
        digits = str(self.minor).rjust(exponent + 1, "0")
        return f"{digits[:-exponent]}.{digits[-exponent:]}"

    def to_json(self) -> dict[str, object]:
        """The amount as details and answers write it."""
        return {"currency": self.currency, "value": self.text}


def parse_currency(unverified: object) -> str:
    """Read a current ISO 4217 code of a currency that has minor units, in upper case."""
    if not isinstance(unverified, str) or unverified not in _EXPONENTS:
        raise NotAValue("must be a current ISO 4217 currency code such as EUR")
    return unverified


# --- merchant categories ------------------------------------------------------------------------------------------

_FOUR_DIGITS = re.compile(r"[0-9]{4}")


def _assigned_categories() -> dict[str, str]:
    # The standard of 2003 first, so that its words win; Visa's and Mastercard's lists carry what was assigned since,
    # and the range 3000-3999 (airlines, car rental, hotels), which the standard leaves to them.
    titles: dict[str, str] = {}
    for name in ("iso18245_official_list.csv", "visa_list.csv", "mastercard_list.csv"):
        with (files("iso18245") / "data" / name).open(encoding="utf-8") as table:
            rows = csv.reader(table)
            next(rows)
            for code, title, *_ in rows:
                titles.setdefault(code, title)
    return titles


_CATEGORY_TITLES: Mapping[str, str] = _assigned_categories()
_ASSIGNED: tuple[int, ...] = tuple(sorted(int(code) for code in _CATEGORY_TITLES))


@dataclass(frozen=True, slots=True)
class MerchantCategory:
    """An assigned ISO 18245 merchant category code, four digits as text."""

    code: str

    @classmethod
    def parse(cls, unverified: object) -> Self:
        """Read an assigned code such as `"5411"`."""
        if not isinstance(unverified, str) or unverified not in _CATEGORY_TITLES:
            raise NotAValue("must be an assigned ISO 18245 category of four digits such as 5411")
        return cls(unverified)

    @property
    def title(self) -> str:
        """What the code stands for, in words."""
        return _CATEGORY_TITLES[self.code]


@dataclass(frozen=True, slots=True)
class CategoryRange:
    """Merchant category codes from `low` to `high`, both included."""

    low: int
    high: int

    @classmethod
    def parse(cls, unverified: object) -> Self:
        """Read an assigned code `"5411"` or a range `"5811-5814"` that holds at least one assigned code.

        The range of all codes is not written so: `any` must be said (`EVERY_CATEGORY`).
        """
        low, dash, high = unverified.partition("-") if isinstance(unverified, str) else ("", "", "")
        if not dash:
            code = int(MerchantCategory.parse(unverified).code)
            return cls(code, code)
        if not _FOUR_DIGITS.fullmatch(low) or not _FOUR_DIGITS.fullmatch(high) or low >= high:
            raise NotAValue("must be four digits, or a rising range of them such as 5811-5814")
        read = cls(int(low), int(high))
        if read == EVERY_CATEGORY or not any(read.low <= code <= read.high for code in _ASSIGNED):
            raise NotAValue("must be a range that holds an assigned ISO 18245 category, and not all of them")
        return read

    @property
    def text(self) -> str:
        """The range as details write it; `any` for all."""
        if self == EVERY_CATEGORY:
            return "any"
        return f"{self.low:04}" if self.low == self.high else f"{self.low:04}-{self.high:04}"

    def contains(self, category: MerchantCategory) -> bool:
        """Whether `category` lies in this range."""
        return self.low <= int(category.code) <= self.high

    def covers(self, other: "CategoryRange") -> bool:
        """Whether every code of `other` lies in this range."""
        return self.low <= other.low and other.high <= self.high

    def overlaps(self, other: "CategoryRange") -> bool:
        """Whether some code lies in both."""
        return self.low <= other.high and other.low <= self.high


EVERY_CATEGORY = CategoryRange(0, 9999)


# --- countries ----------------------------------------------------------------------------------------------------

_COUNTRY_CODES = frozenset(country.alpha_2 for country in pycountry.countries)
_GROUP_NAME = re.compile(r"[A-Z][A-Z0-9_-]{1,31}")


@dataclass(frozen=True, slots=True)
class Country:
    """An ISO 3166-1 alpha-2 code, upper case. Reserved codes (EU, UK) are no countries."""

    code: str

    @classmethod
    def parse(cls, unverified: object) -> Self:
        """Read a code such as `"NL"`."""
        if not isinstance(unverified, str) or unverified not in _COUNTRY_CODES:
            raise NotAValue("must be an ISO 3166-1 country of two upper-case letters such as NL")
        return cls(unverified)


@dataclass(frozen=True, slots=True)
class CountryGroups:
    """The configured names for several countries, such as `EU`; `groups` holds all countries of each."""

    groups: Mapping[str, frozenset[Country]]

    @classmethod
    def parse(cls, document: Mapping[str, object], source: str) -> Self:
        """Read the file of country groups as TOML gives it; `source` is its name, for the error (`NotAValue`)."""
        named = _named_lists(document, "groups", source)
        for name, entries in named.items():
            if name in _COUNTRY_CODES or not _GROUP_NAME.fullmatch(name):
                raise NotAValue(
                    "takes names of 2 to 32 of A-Z 0-9 _ - that are no country", f"{source}: {name}"
                )
            if not entries or not all(entry in named or entry in _COUNTRY_CODES for entry in entries):
                raise NotAValue("takes ISO 3166-1 codes and names of other groups", f"{source}: {name}")
        return cls(
            {
                name: frozenset(map(Country, held - named.keys()))
                for name, held in _closed(named, source).items()
            }
        )

    def contains(self, name: str) -> bool:
        """Whether there is a group of that name."""
        return name in self.groups


# --- data types ---------------------------------------------------------------------------------------------------

_DATATYPE_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


@dataclass(frozen=True, slots=True)
class Datatypes:
    """The kinds of personal data that may be delegated; `contains` holds each kind's own name and all below it."""

    contains: Mapping[str, frozenset[str]]

    @classmethod
    def parse(cls, document: Mapping[str, object], source: str) -> Self:
        """Read the file of data types as TOML gives it; `source` is its name, for the error (`NotAValue`)."""
        named = _named_lists(document, "datatypes", source)
        for name, entries in named.items():
            if name == "any" or not _DATATYPE_NAME.fullmatch(name):
                raise NotAValue("takes names of up to 64 of a-z 0-9 _ (but any)", f"{source}: {name}")
            if not set(entries) <= named.keys():
                raise NotAValue("takes names of other data types of the file", f"{source}: {name}")
        return cls(_closed(named, source))

    def known(self, name: str) -> bool:
        """Whether there is such a data type."""
        return name in self.contains

    def covers(self, granted: Iterable[str], requested: str) -> bool:
        """Whether one of the `granted` types is `requested` or contains it."""
        return any(requested in self.contains.get(name, ()) for name in granted)


def _named_lists(document: Mapping[str, object], table: str, source: str) -> dict[str, list[str]]:
    named = document.get(table)
    if set(document) != {table} or not isinstance(named, dict):
        raise NotAValue(f"takes one table, [{table}]", source)
    for name, entries in named.items():
        if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
            raise NotAValue("takes a list of names", f"{source}: {name}")
        if len(set(entries)) != len(entries):
            raise NotAValue("takes each name once", f"{source}: {name}")
    return named


def _closed(named: Mapping[str, list[str]], source: str) -> dict[str, frozenset[str]]:
    """Each name with itself and all that it contains, directly or not."""

    def held(name: str, above: tuple[str, ...]) -> frozenset[str]:
        if name in above:
            raise NotAValue("must not contain itself", f"{source}: {name}")
        below = (held(entry, (*above, name)) for entry in named.get(name, ()))
        return frozenset({name}).union(*below)

    return {name: held(name, ()) for name in named}


# --- places -------------------------------------------------------------------------------------------------------

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_SEGMENT = r"(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._~!$&'()*+,;=:@-]+"
_RESOURCE = re.compile(
    rf"(?=.{{1,512}}\Z)(?P<scheme>https?)://(?:(?P<name>{_LABEL}(?:\.{_LABEL})*)|\[(?P<six>[0-9a-f:.]+)\])"
    rf"(?::(?P<port>[1-9][0-9]{{0,4}}))?(?:/{_SEGMENT})*/?"
)
_DEFAULT_PORTS = {"https": 443, "http": 80}


@dataclass(frozen=True, slots=True)
class ResourceIdentifier:
    """A resource server's name: an absolute URI (RFC 8707 §2) in the one spelling that this server takes."""

    text: str

    @classmethod
    def parse(cls, unverified: object) -> Self:
        """Read an `https` URI (`http` for loopback only), at most 512 characters.

        Refused is each other spelling of the same place, because requests compare by exact text: fragment, query, user
        name, default port, upper case in the host, empty or dot segments, percent-encoding, and non-ASCII.
        """
        text = unverified if isinstance(unverified, str) else ""
        match = _RESOURCE.fullmatch(text)
        if match is None:
            raise NotAValue("must be an https URI in its plain form, without query or fragment")
        if not _is_host(match["name"], match["six"]) or not _is_port(match["scheme"], match["port"]):
            raise NotAValue("must be a URI with host and port in their shortest form, and no default port")
        if match["scheme"] == "http" and not is_loopback(match["name"] or match["six"]):
            raise NotAValue("must be an https URI; http is for loopback addresses only")
        return cls(text)


def _is_port(scheme: str, port: str | None) -> bool:
    return port is None or (int(port) <= 65_535 and int(port) != _DEFAULT_PORTS[scheme])


def is_loopback(host: str) -> bool:
    """Whether a URL's host (without brackets) can only be this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_host(name: str | None, six: str | None) -> bool:
    try:
        if name is None:
            return str(ipaddress.IPv6Address(six)) == six
        # A last label of digits is an address to every browser (URL standard §3.5), so it must be a proper one.
        if re.fullmatch(r"[0-9]+|0x[0-9a-f]*", name.rpartition(".")[2]):
            return str(ipaddress.IPv4Address(name)) == name
    except ValueError:
        return False
    return len(name) <= 253


# --- names and references -----------------------------------------------------------------------------------------

# Letters, marks and symbols that show nothing (Unicode DerivedCoreProperties, Default_Ignorable_Code_Point, and the
# blank braille cell). The format, control, private and unassigned ones are left to `isprintable`.
_SHOWS_NOTHING = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/#+=@~-]{0,127}")
_MERCHANT_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")


def parse_name(unverified: object) -> str:
    """Read a name that people will see: 1 to 100 visible characters in NFC, plain spaces between them, no `<` or `>`.

    What could hide, reorder or imitate (bidi, zero-width, control, private, unassigned) is refused: CVE-2021-42574.
    """
    if not isinstance(unverified, str) or not 1 <= len(unverified) <= 100:
        raise NotAValue("must be a name of 1 to 100 characters")
    if (
        "<" in unverified
        or ">" in unverified
        or unverified != unverified.strip()
        or not unverified.isprintable()
    ):
        raise NotAValue("must be a name of visible characters without markup")
    if not unverified.isascii() and (
        _SHOWS_NOTHING.search(unverified) or not unicodedata.is_normalized("NFC", unverified)
    ):
        raise NotAValue("must be a name of visible characters in NFC")
    return unverified


def parse_reference(unverified: object) -> str:
    """Read the caller's own reference to a cart, order or subscription: up to 128 plain ASCII characters."""
    if not isinstance(unverified, str) or not _REFERENCE.fullmatch(unverified):
        raise NotAValue(
            "must be 1 to 128 of A-Z a-z 0-9 . _ : / # + = @ ~ - that begin with a letter or digit"
        )
    return unverified


def parse_merchant_id(unverified: object) -> str:
    """Read a merchant's id at its platform: up to 64 plain ASCII characters; `any` is no id."""
    if not isinstance(unverified, str) or not _MERCHANT_ID.fullmatch(unverified) or unverified == "any":
        raise NotAValue("must be 1 to 64 of A-Z a-z 0-9 . _ : -")
    return unverified
