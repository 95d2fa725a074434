"""The dashboard: its files, read once at start, and the addresses of its pages.

Every page is the same document: what is on it, a script reads off the address. So the address of a rollout
may be kept and sent to somebody. Everything is served with a policy that lets nothing else in.
"""

import hashlib
import re
from pathlib import Path
from typing import Final

from gateway.http1.app import Response

FOLDER: Final = Path(__file__).parent / "dashboard"
MEDIA: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""No inline script, no other origin: a name that an attacker chose stays text."""

Fields = list[tuple[str, str]]


ASSETS: Final = "/assets/"
PAGE: Final = "index.html"
PAGES: Final = re.compile(r"/(?:history|audit|tokens|rollouts/[^/]+|services/[^/]+)?")
"""Addresses that lead to the page. Whether there is such a rollout or service, the page asks the API."""


class Site:
    """The dashboard by path: files below `/assets/`, and the page at each of its addresses."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._files = {
            file.relative_to(folder).as_posix(): self._load(file)
            for file in sorted(folder.rglob("*"))
            if file.suffix in MEDIA
        }

    def has(self, path: str) -> bool:
        """Return whether something of the dashboard is at a path."""
        return self._name(path) in self._files

    def answer(self, path: str, if_none_match: str | None) -> Response:
        """Return what is at a path that `has` knows, or 304 if the client has it (RFC 9110 §13.1.2)."""
        fields, body, tag = self._files[self._name(path)]
        if if_none_match is not None and tag in if_none_match:
            return Response(304, list(fields))
        return Response(200, list(fields), body)

    @staticmethod
    def _name(path: str) -> str:
        """Return the name of the file at a path; empty: there is none."""
        if PAGES.fullmatch(path):
            return PAGE
        return path.removeprefix(ASSETS) if path.startswith(ASSETS) else ""

    @staticmethod
    def _load(file: Path) -> tuple[Fields, bytes, str]:
        """Return a file's fields, content and tag."""
        body = file.read_bytes()
        tag = f'"{hashlib.sha256(body).hexdigest()[:20]}"'
        fields = [
            ("Content-Type", MEDIA[file.suffix]),
            ("ETag", tag),
            ("Cache-Control", "no-cache"),
            ("Content-Security-Policy", POLICY),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
        ]
        return fields, body, tag
