"""Three ways to tell somebody: a signed webhook, web push, e-mail. Each sends one message within bounds."""

import base64
import hashlib
import hmac
import smtplib
import ssl
from collections.abc import Mapping
from datetime import datetime
from email.message import EmailMessage
from io import BytesIO

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from pydantic import ValidationError
from webpush import WebPush, WebPushSubscription

from authserver import strict_json
from authserver.actors.fetcher import Fetcher, FetchFailed
from authserver.config import NotificationsSettings

_SMTP_SECONDS = 10
_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_GONE = (404, 410)


class NotDelivered(Exception):
    """It did not arrive; `str()` is a short reason. It is worth another attempt."""


class AddressGone(Exception):
    """There is nobody at that address any more."""


def post_webhook(
    settings: NotificationsSettings, message_id: str, body: Mapping[str, object], now: datetime
) -> None:
    """POST to the operator's program, signed as Standard Webhooks says. Raises `NotDelivered`."""
    if settings.webhook_url is None or settings.webhook_secret is None:
        return
    content, at = strict_json.write(body).encode(), str(int(now.timestamp()))
    signed = f"{message_id}.{at}.".encode() + content
    tag = hmac.digest(settings.webhook_secret.get_secret_value().encode(), signed, hashlib.sha256)
    headers = {
        "Content-Type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": at,
        "webhook-signature": f"v1,{base64.b64encode(tag).decode()}",
    }
    status = _post(settings, settings.webhook_url, content, headers)
    if not 200 <= status < 300:
        raise NotDelivered(f"status {status}")


def push(
    settings: NotificationsSettings,
    key: ec.EllipticCurvePrivateKey,
    subscription: Mapping[str, object],
    body: Mapping[str, object],
    ttl: int,
) -> None:
    """Send to a browser, encrypted for it (RFC 8291) and signed (RFC 8292). Raises `NotDelivered`, `AddressGone`."""
    sender = WebPush(_private(key), BytesIO(_public(key)), settings.push_contact, ttl=ttl)
    try:
        to = WebPushSubscription.model_validate(dict(subscription))
        message = sender.get(strict_json.write(body), to)
    except (ValidationError, ValueError) as error:
        raise AddressGone("the subscription cannot be used") from error
    headers = {name: str(value) for name, value in message.headers.items()}
    status = _post(settings, str(to.endpoint), message.encrypted, headers)
    if status in _GONE:
        raise AddressGone(f"status {status}")
    if not 200 <= status < 300:
        raise NotDelivered(f"status {status}")


def push_key(secret: bytes) -> ec.EllipticCurvePrivateKey:
    """The server's VAPID key: it follows from the secret that all processes share, so none is configured."""
    wide = int.from_bytes(hmac.digest(secret, b"vapid", hashlib.sha512))
    return ec.derive_private_key(wide % (_P256_ORDER - 1) + 1, ec.SECP256R1())


def application_server_key(key: ec.EllipticCurvePrivateKey) -> str:
    """The public half, as `pushManager.subscribe` takes it."""
    point = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return base64.urlsafe_b64encode(point).rstrip(b"=").decode()


def mail(settings: NotificationsSettings, to: str, subject: str, text: str) -> None:
    """Send an e-mail in plain text. Raises `NotDelivered`."""
    if settings.smtp_host is None or settings.mail_from is None:
        return
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = settings.mail_from, to, subject
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no out-of-office answers this
    message.set_content(text)
    try:
        with _smtp(settings, settings.smtp_host) as smtp:
            if settings.smtp_username is not None and settings.smtp_password is not None:
                smtp.login(settings.smtp_username, settings.smtp_password.get_secret_value())
            smtp.send_message(message)
    except (OSError, smtplib.SMTPException) as error:
        raise NotDelivered(type(error).__name__) from error


def _smtp(settings: NotificationsSettings, host: str) -> smtplib.SMTP:
    tls = ssl.create_default_context()
    if settings.smtp_security == "tls":
        return smtplib.SMTP_SSL(host, settings.smtp_port, timeout=_SMTP_SECONDS, context=tls)
    smtp = smtplib.SMTP(host, settings.smtp_port, timeout=_SMTP_SECONDS)
    if settings.smtp_security == "starttls":
        smtp.starttls(context=tls)
    return smtp


def _post(settings: NotificationsSettings, url: str, body: bytes, headers: Mapping[str, str]) -> int:
    try:
        return Fetcher(allow_private_network=settings.allow_private_network).post(url, body, headers)
    except FetchFailed as error:
        raise NotDelivered(error.reason) from error


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _public(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
