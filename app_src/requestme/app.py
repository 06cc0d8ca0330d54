"""requestme: a Flask app that says which host answered."""

import os
import socket
from collections.abc import Mapping
from typing import Any

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix


def create_app(test_config: Mapping[str, Any] | None = None) -> Flask:
    """Build the application.

    Args:
        test_config: Settings that win over the defaults and the environment.

    Returns:
        The WSGI application.
    """
    app = Flask(__name__, static_folder=None)
    app.config.from_mapping(
        APP_NAME=os.environ.get("APP_NAME", "requestme"),
        APP_RELEASE=os.environ.get("APP_RELEASE", "development"),
        PROVIDE_AUTOMATIC_OPTIONS=False,
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_COOKIE_SECURE=True,
    )
    app.config.from_mapping(test_config)

    # Exactly one proxy stands in front. It passes Host on unchanged, so X-Forwarded-Host could
    # only come from a client.
    app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
        app.wsgi_app, x_for=1, x_proto=1, x_host=0, x_prefix=1
    )

    @app.get("/requestme")
    def requestme() -> dict[str, str]:
        return {
            "message": "Thank you for requesting me.",
            "host": socket.gethostname(),
            "app": app.config["APP_NAME"],
            "release": app.config["APP_RELEASE"],
        }

    @app.get("/healthz")
    def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz")
    def readyz() -> dict[str, str]:
        return {
            "status": "ready",
            "app": app.config["APP_NAME"],
            "release": app.config["APP_RELEASE"],
        }

    return app


app = create_app()

if __name__ == "__main__":
    app.run(host="127.0.0.1", port=9090, debug=False)
