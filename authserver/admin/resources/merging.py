"""Bodies as the parsers of records take them."""

from collections.abc import Mapping

from pydantic import BaseModel


def said(body: BaseModel) -> dict[str, object]:
    """The members that the caller sent and that say something."""
    return body.model_dump(exclude_none=True)


def merged(before: Mapping[str, object], change: BaseModel) -> dict[str, object]:
    """What the record is to be (RFC 7396): what was sent, laid over what is there; null takes away."""
    whole = {**before, **change.model_dump(exclude_unset=True)}
    return {name: value for name, value in whole.items() if value is not None}
