"""What to do about a check of `rehearse` that failed, by framework."""

from typing import Final

FIXES: Final[dict[str, dict[str, str]]] = {
    "health": {
        "": "Answer the health path last: when pools, caches and migrations are ready, and from memory.",
        "gunicorn": "load in post_worker_init or with preload_app = True, before the worker accepts",
        "uvicorn": "do the work in the lifespan's start-up, not in a background task",
        "Node": "await everything, then server.listen()",
        "Puma": "preload_app!, and a health route that needs what requests need",
        "Go": "prepare first, net.Listen last",
    },
    "keep-alive": {
        "": "Keep connections open, and say `Connection: close` on the last answer before closing one.",
        "gunicorn": "--worker-class gthread --keep-alive 75; sync workers keep none",
        "uvicorn": "--timeout-keep-alive 75, and no --limit-max-requests",
        "Node": "server.keepAliveTimeout = 75000; server.maxRequestsPerSocket = 0",
        "Puma": "persistent_timeout 75; max_fast_inline 1000000",
        "Go": "do not call SetKeepAlivesEnabled(false)",
    },
    "head": {
        "": "Answer HEAD as GET, without the body: bytes after it are read as the next answer.",
        "gunicorn": "let the framework's own HEAD handling run (Flask, Django do it for GET views)",
        "uvicorn": "add HEAD to the route's methods; Starlette does for GET",
        "Node": "res.end() without a body when req.method === 'HEAD'",
        "Puma": "use Rack::Head",
        "Go": "http.ResponseWriter drops the body; do not hijack",
    },
    "upload": {
        "": "Read a body to its end, or answer and read on for a while; closing at once loses the answer.",
        "gunicorn": "read request.stream before refusing, or limit it in the gateway: limits.body_bytes",
        "uvicorn": "consume the body before you return an error",
        "Node": "req.resume() before res.end()",
        "Puma": "puma reads bodies itself; a middleware that refuses must not close the socket",
        "Go": "http.MaxBytesReader, which closes only after it has answered",
    },
    "slow-client": {
        "": "Let more clients be slow than there are workers: threads, or an event loop.",
        "gunicorn": "--worker-class gthread --threads 16, or uvicorn workers; never sync",
        "uvicorn": "no blocking calls in async handlers; def handlers run in threads",
        "Node": "no synchronous work in handlers",
        "Puma": "threads 5, 16; puma buffers slow requests unless queue_requests is false",
        "Go": "nothing: each request has its goroutine",
    },
    "two-versions": {
        "": "Let both versions share the store: expand the schema first, contract it a release later.",
        "gunicorn": "take no lock at start that the other version holds",
        "uvicorn": "run migrations apart, each working with both versions",
        "Node": "no exclusive file or port besides its own",
        "Puma": "split a migration that removes a column into two releases (ignored_columns)",
        "Go": "no exclusive lock on an embedded database",
    },
    "idle": {
        "": "Keep idle connections longer than the gateway does (timeouts.upstream_idle, 4 s).",
        "gunicorn": "--keep-alive 75 (2 s by default: too short)",
        "uvicorn": "--timeout-keep-alive 75",
        "Node": "server.keepAliveTimeout = 75000",
        "Puma": "persistent_timeout 75",
        "Go": "http.Server{IdleTimeout: 75 * time.Second}",
    },
    "stop": {
        "": "On SIGTERM stop accepting, finish what runs, then exit; the process itself must get the signal.",
        "gunicorn": "--graceful-timeout 30, and exec it, so that no shell stands in between",
        "uvicorn": "--timeout-graceful-shutdown 30, and exec it",
        "Node": "process.on('SIGTERM', () => { server.close(process.exit); server.closeIdleConnections() })",
        "Puma": "raise_exception_on_sigterm false; worker_shutdown_timeout 30",
        "Go": "signal.NotifyContext, then server.Shutdown(ctx) and wait for it",
    },
}


def fix_of(name: str) -> str:
    """Return what to do about a failed check, in one text."""
    lines = FIXES[name]
    return " ".join([lines[""], *(f"{framework}: {line}." for framework, line in lines.items() if framework)])


def fix_lines(name: str) -> list[str]:
    """Return the same in lines, for people."""
    lines = FIXES[name]
    return [lines[""], *(f"{framework:<9} {line}" for framework, line in lines.items() if framework)]
