"""Addresses of buckets: scheme, bucket, prefix and options, none of which may be a secret.

Options stand in the address itself, `s3://bucket/prefix?endpoint=http://127.0.0.1:8333`, so that every worker
that is given the address has them too. Credentials come from the default chain of each process.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from storage.errors import StoreError
from storage.objects.errors import SecretInOptions, UnknownStorageOption

__all__ = [
    "BUCKET_NAME",
    "OPTIONS",
    "SCHEMES",
    "BucketAddress",
    "checked_options",
    "is_bucket_uri",
    "options_for",
    "require_no_secret",
    "require_no_secret_names",
    "with_options",
]

SCHEMES = ("s3", "gs", "az")
_FLAGS = ("true", "false")
_FOR_ALL = {
    "timeout_s": "seconds until a request counts as failed",
    "cache_dir": "folder on local disk for rows that were read",
    "cache_gib": "size of that folder in GiB",
}
# What each option stands for; secrets are not among them.
OPTIONS: dict[str, dict[str, str]] = {
    "s3": {
        "endpoint": "URL of a server that speaks S3",
        "region": "region of the bucket",
        "virtual_hosted_style_request": "true: the bucket stands in the host's name",
        "skip_signature": "true: a public bucket, without credentials",
        "request_payer": "true: the caller pays",
        **_FOR_ALL,
    },
    "gs": {
        "skip_signature": "true: a public bucket, without credentials",
        **_FOR_ALL,
    },
    "az": {
        "account_name": "name of the storage account",
        "endpoint": "URL of the blob service",
        "use_emulator": "true: Azurite",
        "skip_signature": "true: a public container, without credentials",
        **_FOR_ALL,
    },
}
_NUMBERS = {"timeout_s": (0.05, 3600.0), "cache_gib": (0.0, 1e6)}
_BOOLEAN = ("virtual_hosted_style_request", "skip_signature", "request_payer", "use_emulator")
_PREFIXES = re.compile(r"^(aws|azure_storage|azure|google)_")
_PROVIDERS = {"aws": "s3", "azure_storage": "az", "azure": "az", "google": "gs"}
_ALIASES = {"endpoint_url": "endpoint", "default_region": "region", "timeout": "timeout_s"}
_SECRET = re.compile(
    "key|secret|token|password|passwd|credential|sas|signature$|service_account|bearer", re.IGNORECASE
)
_VARIABLES = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (AWS_SESSION_TOKEN), or AWS_PROFILE",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN",
}
BUCKET_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{1,62}", re.ASCII)
_SEGMENT = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.=@+ -]*", re.ASCII)


def is_bucket_uri(uri: str | os.PathLike[str]) -> bool:
    """Return whether a URI names a place in object storage."""
    return os.fspath(uri).split("://", 1)[0] in SCHEMES and "://" in os.fspath(uri)


def with_options(uri: str, options: Mapping[str, str]) -> str:
    """Return an address of a bucket with further options; a folder takes none.

    Raises:
        SecretInOptions: an option is a secret.
        UnknownStorageOption: there is no such option, or it has another form.
    """
    if not options:
        return uri
    if not is_bucket_uri(uri):
        # The names are checked first: a secret must not pass only because it is useless here.
        for name in options:
            _option_name("s3", name)
        raise UnknownStorageOption(f"{uri} is a folder, which has no storage options: leave them out")
    address = BucketAddress.parse(uri)
    return BucketAddress(
        address.scheme,
        address.bucket,
        address.prefix,
        {**address.options, **checked_options(address.scheme, options)},
    ).uri


def require_no_secret_names(names: Iterable[str], scheme: str = "s3") -> None:
    """Check the names of options or settings, whose values are not looked at.

    Raises:
        SecretInOptions: one of them names a secret.
    """
    for name in names:
        if _SECRET.search(name):
            raise SecretInOptions(
                f"storage option {name[:60]!r} is a secret, which others could read in lists of processes "
                f"and jobs: leave it out and set {_VARIABLES[scheme]} in the environment"
            )


def require_no_secret(uri: str) -> None:
    """Check an address that another library parses, with options of that library.

    Raises:
        SecretInOptions: it contains a user, a password or a secret option, none of which is repeated.
    """
    parts = urlsplit(uri)
    secret = any(_SECRET.search(name) for name, _ in parse_qsl(parts.query, keep_blank_values=True))
    user = parts.netloc.rpartition("@")[0]  # the container, in abfss://container@account...
    if parts.netloc and (secret or ":" in user or (user and parts.scheme in SCHEMES)):
        variables = _VARIABLES.get(parts.scheme, "variables of the environment")
        raise SecretInOptions(
            f"the address {parts.scheme}://... contains a secret, which others could read in lists of "
            f"processes and jobs: leave it out and set {variables}"
        )


@dataclass(frozen=True)
class BucketAddress:
    """A prefix of a bucket.

    Attributes:
        scheme: One of `SCHEMES`.
        bucket: Name of the bucket or container.
        prefix: Without slashes at its ends; empty: the whole bucket.
        options: By their names in `OPTIONS`.
    """

    scheme: str
    bucket: str
    prefix: str
    options: Mapping[str, str]

    @classmethod
    def parse(cls, uri: str) -> BucketAddress:
        """Parse an address.

        Raises:
            SecretInOptions: it contains a secret, which is not repeated.
            UnknownStorageOption: it has an option that does not exist.
            StoreError: it has another form.
        """
        parts = urlsplit(uri)
        if "@" in parts.netloc:
            raise SecretInOptions(
                f"the address of a {parts.scheme} bucket contains a user or a password: put credentials into "
                f"{_VARIABLES[parts.scheme]}"
            )
        options = checked_options(parts.scheme, dict(parse_qsl(parts.query, keep_blank_values=True)))
        prefix = unquote(parts.path).strip("/")
        segments = prefix.split("/") if prefix else []
        if not BUCKET_NAME.fullmatch(parts.netloc) or parts.fragment:
            raise StoreError(f"{_shown(parts.scheme, parts.netloc, '')}: write it as s3://bucket/prefix")
        if any(not _SEGMENT.fullmatch(segment) or segment in (".", "..") for segment in segments):
            raise StoreError(
                f"{_shown(parts.scheme, parts.netloc, '')}: {prefix[:80]!r} is not a prefix that placeray "
                "uses: take letters, digits and _.-=@+ between slashes"
            )
        return cls(parts.scheme, parts.netloc, prefix, options)

    @property
    def uri(self) -> str:
        """The address with its options."""
        query = "&".join(f"{name}={quote(value, safe=':/')}" for name, value in sorted(self.options.items()))
        return self.shown + (f"?{query}" if query else "")

    @property
    def shown(self) -> str:
        """The address for messages: without options."""
        return _shown(self.scheme, self.bucket, self.prefix)

    @property
    def lance_options(self) -> dict[str, str]:
        """The options by the names that Lance has for them; credentials it finds by itself."""
        names = {
            "region": "aws_region",
            "virtual_hosted_style_request": "aws_virtual_hosted_style_request",
            "skip_signature": {"s3": "aws_skip_signature", "gs": "google_skip_signature"}.get(
                self.scheme, "azure_skip_signature"
            ),
            "request_payer": "aws_request_payer",
            "account_name": "azure_storage_account_name",
            "use_emulator": "azure_storage_use_emulator",
        }
        given = {names[name]: value for name, value in self.options.items() if name in names}
        endpoint = self.endpoint()
        if endpoint:
            given["aws_endpoint" if self.scheme == "s3" else "azure_storage_endpoint"] = endpoint
            given["allow_http"] = str(endpoint.startswith("http://")).lower()
        if self.scheme == "s3":
            given.setdefault("aws_region", self.region())
        seconds = f"{self.timeout_s:g}s"
        return {**given, "timeout": seconds, "client_max_retries": "3", "client_retry_timeout": "30"}

    @property
    def timeout_s(self) -> float:
        """Seconds until a request counts as failed."""
        return float(self.options.get("timeout_s", 5.0))

    def endpoint(self, environment: Mapping[str, str] = os.environ) -> str | None:
        """Return the server that is asked: of the options, else of the environment; None: the provider's."""
        if "endpoint" in self.options:
            return self.options["endpoint"]
        names = {
            "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
            "az": ("AZURE_ENDPOINT", "AZURE_STORAGE_ENDPOINT"),
        }
        return next((environment[name] for name in names.get(self.scheme, ()) if environment.get(name)), None)

    def region(self, environment: Mapping[str, str] = os.environ) -> str:
        """Return the region: of the options, else of the environment."""
        named = self.options.get("region") or environment.get("AWS_REGION")
        return named or environment.get("AWS_DEFAULT_REGION") or "us-east-1"


def _shown(scheme: str, bucket: str, prefix: str) -> str:
    return f"{scheme}://{bucket}" + (f"/{prefix}" if prefix else "")


def checked_options(scheme: str, options: Mapping[str, str]) -> dict[str, str]:
    """Return options by their names in `OPTIONS`.

    Raises:
        SecretInOptions: one of them is a secret.
        UnknownStorageOption: the scheme has no such option, or it has another form.
    """
    checked = {}
    for given, value in options.items():
        name = _option_name(scheme, given)
        if name in _BOOLEAN and value not in _FLAGS:
            raise UnknownStorageOption(f"storage option {name} is true or false, not {value[:40]!r}")
        if name in _NUMBERS and not _is_number(value, *_NUMBERS[name]):
            low, high = _NUMBERS[name]
            raise UnknownStorageOption(
                f"storage option {name} is a number from {low:g} to {high:g}, not {value[:40]!r}"
            )
        if name == "endpoint":
            _check_endpoint(scheme, value)
        checked[name] = value
    return checked


def options_for(scheme: str, options: Mapping[str, str]) -> dict[str, str]:
    """Return those of some options that a scheme has; names that begin with a provider are that one's alone.

    Raises:
        SecretInOptions: one of them is a secret, of whatever scheme.
        UnknownStorageOption: no scheme has one of them, or it has another form.
    """
    chosen: dict[str, str] = {}
    for given, value in options.items():
        schemes = [each for each in SCHEMES if _known_option(each, given)]
        provider = _PREFIXES.match(given.lower())
        if provider is not None:
            schemes = [each for each in schemes if each == _PROVIDERS[provider[1]]]
        if scheme in schemes or not schemes:
            chosen |= checked_options(scheme, {given: value})
    return chosen


def _known_option(scheme: str, given: str) -> str | None:
    name = _PREFIXES.sub("", given.lower())
    name = _ALIASES.get(name, name)
    return name if name in OPTIONS[scheme] else None


def _option_name(scheme: str, given: str) -> str:
    if (name := _known_option(scheme, given)) is not None:
        return name
    require_no_secret_names([given], scheme)
    raise UnknownStorageOption(
        f"there is no storage option {given[:60]!r} for {scheme}://: choose from {', '.join(OPTIONS[scheme])}"
    )


def _check_endpoint(scheme: str, value: str) -> None:
    parts = urlsplit(value)
    if "@" in parts.netloc or parts.query:
        raise SecretInOptions(
            f"storage option endpoint contains a user, a password or a query: give the URL alone and set "
            f"{_VARIABLES[scheme]} in the environment"
        )
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise UnknownStorageOption("storage option endpoint is a URL such as https://storage.example.com")


def _is_number(value: str, low: float, high: float) -> bool:
    try:
        return low <= float(value) <= high  # False for NaN
    except ValueError:
        return False
