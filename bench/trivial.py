"""The smallest Flask application with the shape of an exchange: a form of 2.5 KB in, a JSON answer of 1 KB out.

What remains of a request when nothing is done: the server and the framework. Served by every candidate in `servers`.
"""

from flask import Flask, Response, request

application = Flask(__name__)
_TOKEN = "x" * 900


@application.post("/oauth/token")
def token() -> Response:
    """Read the form, answer with something of a token's size."""
    if len(request.form["subject_token"]) < 100:
        return Response('{"error":"invalid_request"}', 400, content_type="application/json")
    body = f'{{"access_token":"{_TOKEN}","token_type":"Bearer","expires_in":120}}'
    return Response(body, content_type="application/json", headers={"Cache-Control": "no-store"})


@application.get("/healthz")
def healthz() -> str:
    """Alive."""
    return "ok"
