"""The app of a team."""

import os

from flask import Flask

app = Flask(__name__)


@app.get("/")
def hello() -> str:
    """Answer."""
    return "Hello from a team's repository."


@app.get("/readyz")
def ready() -> str:
    """Tell which release is ready."""
    return os.environ["APP_RELEASE"]
