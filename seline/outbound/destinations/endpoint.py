"""The options `endpoint` and `allow_http` of a destination, and what its address says."""

import re
from ipaddress import ip_address
from urllib.parse import urlsplit

from seline.domain.alerts.sink_spec import is_web_address
from seline.errors import SettingsError
from seline.settings import truth
from seline.settings.values import DestinationSettings


def check_address(configured: DestinationSettings, options: dict[str, str]) -> None:
    """Raise SettingsError unless the bucket and an `endpoint` can be used.

    Removes `allow_http` from the options.
    """
    scheme, host, *_ = urlsplit(configured.url)
    allow_http = truth_of(configured.name, options, "allow_http")
    if not re.fullmatch(r"[\w.-]+", host):
        raise SettingsError(
            f"The `url` of the destination {configured.name} names no bucket.",
            hint=f"Write `url` as {scheme}://BUCKET or {scheme}://BUCKET/PREFIX.",
        )
    endpoint = options.get("endpoint", "")
    if endpoint and not (is_web_address(endpoint) and "@" not in endpoint):
        raise SettingsError(
            f"The `endpoint` of the destination {configured.name} is no web address.",
            hint="Set `endpoint` to the address of the service, such as "
            "https://storage.example.org.",
        )
    if endpoint.startswith("http:") and not (allow_http or is_loopback(endpoint)):
        raise SettingsError(
            f"The `endpoint` of the destination {configured.name} is not encrypted.",
            hint="Use an `endpoint` with https://, or set `allow_http = true` on a network of "
            "your own.",
        )


def truth_of(name: str, options: dict[str, str], option: str) -> bool | None:
    """Remove an option that is true or false, and return it; None if it is not set."""
    text = options.pop(option, None)
    try:
        return None if text is None else truth(text)
    except ValueError:
        raise SettingsError(
            f"The `{option}` of the destination {name} is neither true nor false.",
            hint="Set it to true or false.",
        ) from None


def is_loopback(endpoint: str) -> bool:
    """Return whether an endpoint is on this machine by its name or address."""
    host = urlsplit(endpoint).hostname or ""
    return host == "localhost" or (is_ip(endpoint) and ip_address(host).is_loopback)


def is_ip(endpoint: str) -> bool:
    """Return whether the host of an endpoint is an IP address."""
    try:
        ip_address(urlsplit(endpoint).hostname or "")
    except ValueError:
        return False
    return True
