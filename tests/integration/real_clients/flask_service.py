"""A Flask service behind ProxyFix, as people deploy it: it must see the client, not the gateway."""

import hashlib
import sys
from collections.abc import Iterator

from flask import Flask, Response, jsonify, make_response, redirect, request, url_for
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.serving import WSGIRequestHandler, run_simple
from werkzeug.wrappers import Response as BaseResponse

ADDED = ("X-Forwarded-", "Forwarded", "X-Request-Id", "Traceparent", "Cdn-Loop", "Connection", "Keep-Alive")
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "PROPFIND", "LIST"]
app = Flask(__name__)


@app.route("/flask/echo", methods=METHODS)
@app.route("/flask/echo/<path:rest>", methods=METHODS)
def echo(rest: str = "") -> Response:
    body = request.get_data()
    return jsonify(
        method=request.method,
        url=request.url,
        rest=rest,
        args=request.args.to_dict(flat=False),
        client=request.remote_addr,
        secure=request.is_secure,
        size=len(body),
        digest=hashlib.sha256(body).hexdigest(),
        fields=sorted([name, value] for name, value in request.headers if not name.startswith(ADDED)),
    )


@app.route("/flask/form", methods=["POST"])
def form() -> Response:
    files = {name: hashlib.sha256(file.read()).hexdigest() for name, file in request.files.items()}
    return jsonify(fields=request.form.to_dict(), files=files)


@app.route("/flask/redirect")
def away() -> BaseResponse:
    return redirect(url_for("echo", rest="x y", _external=True), 303)


@app.route("/flask/cookies")
def cookies() -> Response:
    response = make_response("set")
    response.set_cookie("a", "1", httponly=True)
    response.set_cookie("b", "two words", samesite="Lax")
    return response


@app.route("/flask/empty", methods=["DELETE"])
def empty() -> tuple[str, int]:
    return "", 204


@app.route("/flask/stream")
def stream() -> Response:
    def pieces() -> Iterator[str]:
        for number in range(20):
            yield f"piece {number}\n" * 200

    return Response(pieces(), mimetype="text/plain")


if __name__ == "__main__":
    app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1, x_host=1, x_port=1)  # type: ignore[method-assign]
    WSGIRequestHandler.protocol_version = "HTTP/1.1"
    run_simple("127.0.0.1", int(sys.argv[1]), app, threaded=True)
