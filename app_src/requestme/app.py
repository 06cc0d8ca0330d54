"""requestme: a Flask app that says which host answered."""

import os
import socket

from flask import Flask

NAME = os.environ.get("APP_NAME", "requestme")
RELEASE = os.environ.get("APP_RELEASE", "development")

app = Flask(__name__, static_folder=None)


@app.get("/requestme")
def requestme() -> dict[str, str]:
    """Say thanks, and who answers."""
    return {
        "message": "Thank you for requesting me.",
        "host": socket.gethostname(),
        "app": NAME,
        "release": RELEASE,
    }


@app.get("/readyz")
def readyz() -> dict[str, str]:
    """Tell that the app takes traffic, and which release it is."""
    return {"status": "ready", "app": NAME, "release": RELEASE}


if __name__ == "__main__":
    app.run(host="127.0.0.1", port=9090, debug=False)
