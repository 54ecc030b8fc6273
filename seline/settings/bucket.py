"""The options of buckets as destinations from variables, and Railway's bucket without a setting.

Railway gives a service the variables BUCKET, ENDPOINT, ACCESS_KEY_ID, SECRET_ACCESS_KEY and REGION
of a bucket that it refers to, or names of Amazon's libraries. Elsewhere a bucket in the environment
may be the bot's own, so it is no destination; a warning names it if it has Railway's variables.
"""

import importlib.util
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final
from urllib.parse import urlsplit

from seline.settings.values import DestinationSettings, UnusableBucket

NAME: Final = "bucket"
"""The name of the destination."""
_INSTALL: Final = "`pip install 'seline[s3]'`"
_EXTRA: Final = f"the extra of {_INSTALL}"
_VARIABLES: Final[Mapping[str, Sequence[str]]] = {
    "endpoint": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "access_key_id": ("AWS_ACCESS_KEY_ID",),
    "secret_access_key": ("AWS_SECRET_ACCESS_KEY",),
    "region": ("AWS_REGION", "AWS_DEFAULT_REGION"),
}
"""The variables that an option is taken from if it is not set."""
_OF_SCHEMES: Final[Mapping[str, Mapping[str, Sequence[str]]]] = {
    "s3": _VARIABLES,
    "gs": {"service_account": ("GOOGLE_SERVICE_ACCOUNT_KEY", "GOOGLE_APPLICATION_CREDENTIALS")},
    "az": {
        "account": ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT"),
        "account_key": ("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_KEY"),
        "sas_token": ("AZURE_STORAGE_SAS_TOKEN",),
    },
}
_LOGINS: Final = frozenset({"account_key", "sas_token"})
"""Either of them is enough, so a setting of one is not completed by a variable of the other."""
_BUCKET: Final = ("BUCKET", "AWS_S3_BUCKET_NAME", "AWS_BUCKET_NAME", "AWS_BUCKET")
_OF_RAILWAY: Final = ("BUCKET", "ENDPOINT", "ACCESS_KEY_ID", "SECRET_ACCESS_KEY")
_STYLE: Final = "AWS_S3_URL_STYLE"
_FOLDERS: Final = ("RAILWAY_ENVIRONMENT_NAME", "RAILWAY_SERVICE_NAME")
_REQUIRED: Final = ("endpoint", "access_key_id", "secret_access_key")
_ON_RAILWAY: Final = (
    "RAILWAY_ENVIRONMENT",
    "RAILWAY_SERVICE_ID",
    "RAILWAY_DEPLOYMENT_ID",
    *_FOLDERS,
)
"""One of them is set in every service; RAILWAY_TOKEN is one of a developer's own machine."""


def bucket_of_environment(
    environ: Mapping[str, str], warnings: list[str]
) -> tuple[dict[str, object], str] | UnusableBucket | None:
    """Return the table of a destination `bucket` and the variable that names it, or None.

    Of several variables with a value, Railway's own is taken. If one is missing or the extra `s3`
    is not installed, adds a warning and returns why there is no destination. Adds a warning, too,
    if Railway's variables of a bucket are set elsewhere.
    """
    named = next((name for name in _BUCKET if environ.get(name)), None)
    if named is None:
        return None
    if not any(environ.get(name) for name in _ON_RAILWAY):
        warnings += _not_used(environ)
        return None
    every = {option: (option.upper(), *names) for option, names in _VARIABLES.items()}
    options = _from_variables(every, environ)
    missing = [option.upper() for option in _REQUIRED if option not in options]
    if not missing and importlib.util.find_spec("obstore") is None:
        missing = [_EXTRA]
    if missing:
        message = f"{named} names a bucket, but {' and '.join(missing)} is missing"
        warnings.append(f"{message}, so it receives no copies")
        do = f"Set {' and '.join(missing)}"
        if missing == [_EXTRA]:
            do = f"Install it with {_INSTALL}"
        return UnusableBucket(
            name=NAME,
            message=message,
            hint=f"{do}, and restart. If Seline is not to use this bucket, set "
            "`SELINE_EXPORTS__DESTINATIONS=[]`; an empty volume then begins empty.",
        )
    if environ.get(_STYLE):
        options["path_style"] = str(environ[_STYLE] == "path").lower()
    url = "/".join((f"s3://{environ[named]}", *_folders(environ)))
    return {"name": NAME, "url": url, **options}, named


def _not_used(environ: Mapping[str, str]) -> list[str]:
    """Return a warning if the environment has Railway's variables of a bucket, else none."""
    if not all(environ.get(name) for name in _OF_RAILWAY):
        return []
    url, endpoint = f"s3://{environ['BUCKET']}", environ["ENDPOINT"]
    table = f'"name": "{NAME}", "url": "{url}", "endpoint": "{endpoint}"'
    keys = '"access_key_id": "KEY_ID", "secret_access_key": "SECRET"'
    warning = (
        "BUCKET names a bucket, which receives no copies, because none of "
        f"{', '.join(_ON_RAILWAY)} shows that this is Railway. To send copies there, set "
        f"`SELINE_EXPORTS__DESTINATIONS=[{{{table}, {keys}}}]`; if it is the bot's, set "
        "`SELINE_EXPORTS__DESTINATIONS=[]`."
    )
    return [warning]


def _folders(environ: Mapping[str, str]) -> list[str]:
    """Return the folders of a service in a bucket: other services may refer to it as well."""
    names = (re.sub(r"[^A-Za-z0-9_.-]+", "-", environ.get(name, "")) for name in _FOLDERS)
    return [name for name in (name.strip(".-") for name in names) if name]


def with_variables(
    destination: DestinationSettings, environ: Mapping[str, str]
) -> DestinationSettings:
    """Return a destination with the options that only variables give, if it is a bucket."""
    variables = _OF_SCHEMES.get(urlsplit(destination.url).scheme, {})
    found = _from_variables(variables, environ)
    if _LOGINS & destination.options.keys():
        found = {option: text for option, text in found.items() if option not in _LOGINS}
    return replace(destination, options={**found, **destination.options})


def _from_variables(
    variables: Mapping[str, Sequence[str]], environ: Mapping[str, str]
) -> dict[str, str]:
    found = {
        option: next((environ[name] for name in names if environ.get(name)), None)
        for option, names in variables.items()
    }
    return {option: text for option, text in found.items() if text}
