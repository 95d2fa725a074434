"""The dashboard's files: read once at start, served with a policy that lets nothing else in."""

import hashlib
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


class Site:
    """The static files by path; `/` is the page."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._files: dict[str, tuple[Fields, bytes, str]] = {}
        for file in sorted(folder.iterdir()):
            if file.suffix in MEDIA:
                path = "/" if file.name == "index.html" else f"/{file.name}"
                self._files[path] = self._load(file)

    @property
    def paths(self) -> frozenset[str]:
        """Return every path there is a file for."""
        return frozenset(self._files)

    def answer(self, path: str, if_none_match: str | None) -> Response:
        """Return the file at a path of `paths`, or 304 if the client has it (RFC 9110 §13.1.2)."""
        fields, body, tag = self._files[path]
        if if_none_match is not None and tag in if_none_match:
            return Response(304, list(fields))
        return Response(200, list(fields), body)

    @staticmethod
    def _load(file: Path) -> tuple[Fields, bytes, str]:
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
