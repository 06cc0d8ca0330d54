"""HTTP/2 as no client speaks it."""

from __future__ import annotations

import contextlib
import ssl
from collections import Counter

import h2.config
import h2.connection
import h2.errors
import h2.events
from wire import Node

TLS = 443
Headers = list[tuple[bytes, bytes]]


def connect(node: Node, app: str = "echo", protocol: str = "h2", patience: float = 15) -> ssl.SSLSocket:
    """Open a connection to an app's name; its certificate is the test's own."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols([protocol])
    connection = context.wrap_socket(node.connect(TLS, patience), server_hostname=f"{app}.test")
    assert connection.selected_alpn_protocol() == protocol
    return connection


def client() -> h2.connection.H2Connection:
    """A client that sends whatever it is told to."""
    config = h2.config.H2Configuration(
        validate_outbound_headers=False, normalize_outbound_headers=False, header_encoding=None
    )
    connection = h2.connection.H2Connection(config)
    connection.initiate_connection()
    return connection


def exchange(node: Node, headers: Headers, body: bytes = b"", app: str = "echo") -> tuple[str, bytes]:
    """Send one request; returns the status, or how the server refused, and the body."""
    verdict, answer, state = "", b"", client()
    with connect(node, app) as connection:
        state.send_headers(1, headers, end_stream=not body)
        if body:
            state.send_data(1, body, end_stream=True)
        connection.sendall(state.data_to_send())
        while True:
            with contextlib.suppress(ConnectionError):
                chunk = connection.recv(1 << 16)
            if not chunk:
                return verdict or "closed", answer
            for event in state.receive_data(chunk):
                match event:
                    case h2.events.ResponseReceived():
                        verdict = dict(event.headers)[b":status"].decode()
                    case h2.events.DataReceived():
                        answer += event.data
                    case h2.events.StreamReset():
                        return verdict or "reset", answer
                    case h2.events.ConnectionTerminated():
                        return verdict or "closed", answer
                    case h2.events.StreamEnded():
                        return verdict, answer
            connection.sendall(state.data_to_send())


def load(node: Node, headers: Headers, count: int) -> Counter[str]:
    """Send requests on one connection, as many at once as the server takes; returns their statuses."""
    verdicts: Counter[str] = Counter()
    state, sent, done = client(), 0, 0
    with connect(node) as connection:
        connection.sendall(state.data_to_send())
        known = False
        while done < count:
            # Nothing before the server has said how many at once.
            while (
                known
                and sent < count
                and state.open_outbound_streams < state.remote_settings.max_concurrent_streams
            ):
                state.send_headers(state.get_next_available_stream_id(), headers, end_stream=True)
                sent += 1
            connection.sendall(state.data_to_send())
            chunk = connection.recv(1 << 16)
            assert chunk, f"closed after {verdicts}"
            for event in state.receive_data(chunk):
                match event:
                    case h2.events.RemoteSettingsChanged():
                        known = True
                    case h2.events.ResponseReceived():
                        verdicts[dict(event.headers)[b":status"].decode()] += 1
                    case h2.events.DataReceived():
                        state.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                    case h2.events.StreamEnded() | h2.events.StreamReset():
                        done += 1
    return verdicts


def until_closed(connection: ssl.SSLSocket) -> list[h2.events.Event]:
    """Read what the server says until it closes; the socket's own time limit ends a wait in vain."""
    state, events = client(), []
    state.data_to_send()
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while chunk := connection.recv(1 << 16):
            with contextlib.suppress(Exception):  # what our own state machine thinks does not matter
                events += state.receive_data(chunk)
    return events
