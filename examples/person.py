"""Ada at her browser, by script: the same pages and forms that a person has, over the same HTTP."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser

import httpx


class UnexpectedPage(Exception):
    """A page that the script does not know; the message is what came."""


@dataclass(frozen=True, slots=True)
class ConsentPage:
    """What Ada is asked: where she answers, the sentence that she reads first, and the form as it came."""

    path: str
    sentence: str
    form: Mapping[str, list[str]] = field(repr=False)


class Person:
    """Somebody who signs in with a password and answers agents.

    `pages` and `presses` count what that costs them: pages that they looked at, buttons that they pressed.
    """

    def __init__(self, issuer: str, username: str, password: str) -> None:
        """Signs in. Raises `UnexpectedPage`."""
        self._issuer, self._http = issuer, httpx.Client(base_url=issuer, headers={"Accept": "text/html"})
        self.pages = self.presses = 0
        form = _Form.of(self._looks("/sign-in")) | {"username": [username], "password": [password]}
        self._sent(self._http.post("/sign-in", data=form))

    def reads(self, url: str) -> ConsentPage:
        """Open the link of an agent."""
        return self._page(self._sent(self._http.get(url)))

    def types(self, user_code: str) -> ConsentPage:
        """Type the code that a device shows."""
        form = _Form.of(self._looks("/device")) | {"user_code": [user_code]}
        return self._page(self._sent(self._http.post("/device", data=form)))

    def allows(self, page: ConsentPage, **choices: str) -> str:
        """Allow it, with some fields changed; gives where the browser is sent then."""
        chosen = {name: [value] for name, value in choices.items()}
        return self._sent(self._http.post(page.path, data={**page.form, **chosen, "decision": ["allow"]}))

    def approves(self, url: str) -> str:
        """Open the page of what an agent waits for, and press “Approve”; gives the sentence that stands at its top."""
        form = _Form(self._looks(url))
        self._sent(self._http.post(url, data={**form.fields, "answer": ["approve"]}))
        return form.heading

    def stops(self, grant_id: str) -> None:
        """Press the button that ends an agent's delegation."""
        page = self._looks(f"/delegations/{grant_id}")
        form = {"csrf": _Form.of(page)["csrf"]}
        self._sent(self._http.post(f"/delegations/{grant_id}/revoke", data=form))

    def _looks(self, path: str) -> httpx.Response:
        self.pages += 1
        return self._http.get(path)

    def _page(self, path: str) -> ConsentPage:
        form = _Form(self._looks(path))
        return ConsentPage(path.partition("?")[0], form.sentence, form.fields)

    def _sent(self, answer: httpx.Response) -> str:
        self.presses += answer.request.method == "POST"
        if answer.status_code != 303:
            raise UnexpectedPage(f"{answer.request.method} {answer.request.url}\n{answer.text}")
        return answer.headers["location"]


class _Form(HTMLParser):
    """The fields of a page's forms, as a browser would send them untouched; and its leading sentence."""

    def __init__(self, page: httpx.Response) -> None:
        super().__init__()
        if not page.is_success:
            raise UnexpectedPage(f"{page.request.method} {page.request.url}\n{page.text}")
        self.fields: dict[str, list[str]] = {}
        self.sentence, self.heading, self._leading, self._heading = "", "", False, False
        self.feed(page.text)

    @classmethod
    def of(cls, page: httpx.Response) -> dict[str, list[str]]:
        """The fields alone."""
        return cls(page).fields

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """A field, or the beginning of the sentence."""
        said = dict(attributes)
        self._leading = tag == "p" and said.get("class") == "lead"
        self._heading = tag == "h1"
        name, kind = said.get("name"), said.get("type")
        if tag != "input" or name is None:
            return
        if kind in ("checkbox", "radio"):
            if "checked" in said:
                self.fields.setdefault(name, []).append(said.get("value") or "")
        else:
            self.fields[name] = [said.get("value") or ""]

    def handle_endtag(self, tag: str) -> None:
        """The end of the sentence."""
        self._leading = self._heading = False

    def handle_data(self, data: str) -> None:
        """Its words."""
        if self._leading:
            self.sentence += data
        if self._heading:
            self.heading += data
