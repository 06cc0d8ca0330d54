"""What crosses the balancer: headers, methods, bodies; and what it notes in its log."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from balancer import Balancer, Received, Run

testinfra_hosts = ["ansible://balancers"]

ADDED = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "strict-origin-when-cross-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


@pytest.mark.parametrize(
    "name",
    [
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "X-Forwarded-Host",
        "X-Forwarded-Port",
        "X-Forwarded-Prefix",
        "X-Forwarded-Ssl",
        "X-Forwarded-Protocol",
        "X-Real-IP",
        "X-Request-Id",
        "X_Forwarded_For",
        "X_Forwarded-Proto",
        "Forwarded",
        "Proxy",
    ],
)
@pytest.mark.parametrize("path", ["/kept/", "/stripped/", "/stripped/ws"])
def test_made_up_header(balancer: Balancer, path: str, name: str) -> None:
    """Nobody can tell an app who they are by a header that only the balancer may set."""
    answer = balancer.ask(path, headers={name: "made-up"})
    assert answer.status == 200
    assert "made-up" not in str(answer.received.headers)


def test_headers_that_the_app_gets(balancer: Balancer) -> None:
    """The app learns the name and port that the client used, the client, and its own prefix."""
    received = balancer.ask("/stripped/", headers={"Host": "Example.org:8088", "X-Mine": "kept"}).received
    (client,) = received.header("X-Real-IP")
    assert re.fullmatch(r"[0-9.]+", client)
    assert received.header("X-Forwarded-For") == [client]
    assert received.header("X-Forwarded-Proto") == ["http"]
    assert received.header("X-Forwarded-Prefix") == ["/stripped"]
    assert received.header("Host") == ["example.org:8088"]
    assert received.header("X-Mine") == ["kept"]


@pytest.mark.parametrize("path", ["/kept/", "/two", "/stripped/ws", "/kept/deeper/"])
def test_no_prefix(balancer: Balancer, path: str) -> None:
    """Only a path that was cut has a prefix to put back."""
    assert balancer.ask(path).received.header("X-Forwarded-Prefix") == []


@pytest.mark.parametrize(("app", "name"), [("kept", "localhost"), ("shop", "shop.example.org")])
def test_what_a_deploy_asks(balancer: Balancer, app: str, name: str) -> None:
    """By the status server a deploy asks as clients would: by a name of the app's, over TLS."""
    received = Received.of(balancer.status(f"/backends/{app}/first")[1])
    assert received.header("Host") == [name]
    assert received.header("X-Forwarded-Proto") == ["https"]
    assert len(received.header("X-Request-Id")) == 1
    assert received.header("X-Forwarded-For") == ["127.0.0.1"]


def test_host_without_a_port(balancer: Balancer) -> None:
    """No port is made up."""
    assert balancer.ask("/kept/", headers={"Host": "example.org"}).received.header("Host") == ["example.org"]


def test_front_proxy(balancer: Balancer, role: Callable[..., Run]) -> None:
    """What a known proxy says of the client is believed, its own made-up entries are not."""
    # The client, as a node sees it, is the gateway of the nodes' network.
    (gateway,) = balancer.ask("/kept/").received.header("X-Real-IP")
    assert role(nginx_front={"proxies": [gateway, "192.0.2.0/24"]}).ok
    said = {"X-Forwarded-For": "203.0.113.66, 203.0.113.9, 192.0.2.1"}
    received = balancer.ask("/kept/", headers=said).received
    assert received.header("X-Forwarded-For") == received.header("X-Real-IP") == ["203.0.113.9"]


@pytest.fixture(scope="module")
def front(balancer: Balancer) -> Iterator[Balancer]:
    """Return the balancer, behind a proxy that it knows: us."""
    (gateway,) = balancer.ask("/kept/").received.header("X-Real-IP")
    assert balancer.run_role(nginx_front={"proxies": [gateway]}).ok
    yield balancer
    assert balancer.run_role().ok


@pytest.mark.parametrize(
    ("said", "scheme"), [("https", "https"), ("HTTPS", "https"), ("http", "http"), ("ftp", "http")]
)
def test_scheme_that_a_front_proxy_says(front: Balancer, said: str, scheme: str) -> None:
    """A known proxy that ends TLS is believed: the app makes links and cookies for what the client uses."""
    answer = front.ask("/kept/", headers={"X-Forwarded-Proto": said})
    assert answer.received.header("X-Forwarded-Proto") == [scheme]
    assert front.logged("id", answer.id)["scheme"] == scheme


def test_cache_by_the_scheme_of_a_front_proxy(front: Balancer) -> None:
    """A redirect to https that is kept for http must not be the answer to https."""
    path = f"/cached/?mark={time.monotonic_ns()}"
    answers = [front.ask(path, headers={"X-Forwarded-Proto": said}) for said in ("http", "https")]
    assert [answer.received.header("X-Forwarded-Proto") for answer in answers] == [["http"], ["https"]]


@pytest.mark.full
def test_tls_behind_a_front_proxy(balancer: Balancer, role: Callable[..., Run]) -> None:
    """Who says https on the plain port is told what to do; a redirect would go on for ever."""
    (gateway,) = balancer.ask("/kept/").received.header("X-Real-IP")
    pem = "/etc/nginx/test.pem"
    balancer.host.check_output(
        "cd /root && openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=a -keyout key -out crt 2>/dev/null"
        f" && cat crt key > {pem}"
    )
    assert role(nginx_front={"proxies": [gateway]}, nginx_certificate={"file": pem}).ok
    plain = balancer.ask("/kept/?a=b")
    assert (plain.status, plain.header("Location")) == (308, [f"https://{balancer.address[0]}/kept/?a=b"])
    secure = balancer.ask("/kept/", headers={"X-Forwarded-Proto": "https"})
    assert secure.status == 421
    assert b"port 443" in secure.body


@pytest.mark.full
def test_health_for_a_load_balancer_in_front(balancer: Balancer, role: Callable[..., Run]) -> None:
    """It asks by address, which no app has as its name; Nginx answers, and only it."""
    shop = {"name": "shop", "framework": "flask", "port": 9105, "server_names": ["shop.example.org"]}
    assert role(apps=[{**shop, "routes": [{"path": "/"}]}], nginx_front={"health_path": "/nginx-health"}).ok
    for name in ("192.0.2.1", "shop.example.org"):
        answer = balancer.ask("/nginx-health", headers={"Host": name})
        assert (answer.status, answer.body) == (200, b"Nginx runs.\n")
    assert balancer.send(b"GET / HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n") == b""


def test_many_requests_of_one_client(balancer: Balancer, role: Callable[..., Run]) -> None:
    """One client address cannot take all that Nginx has."""
    assert role(nginx_limits={"client_requests": 2}).ok
    slow = [threading.Thread(target=balancer.ask, args=("/kept/?slow=3",)) for _ in range(2)]
    for thread in slow:
        thread.start()
    time.sleep(1)
    assert balancer.ask("/kept/").status == 429
    for thread in slow:
        thread.join()
    assert balancer.ask("/kept/").status == 200


@pytest.mark.full
def test_many_websockets_of_one_client(balancer: Balancer, role: Callable[..., Run]) -> None:
    """People of an office have one open each, behind one address: the firewall counts those."""
    assert role(nginx_limits={"client_requests": 2}).ok
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade"}
    ask = ("/stripped/ws?slow=3", "GET", None, upgrade)
    open_ = [threading.Thread(target=balancer.ask, args=ask) for _ in range(4)]
    for thread in open_:
        thread.start()
    time.sleep(1)
    assert balancer.ask("/kept/").status == 200
    for thread in open_:
        thread.join()


@pytest.mark.parametrize(
    ("path", "upgrade", "arrives"),
    [
        ("/stripped/ws", "websocket", ["websocket"]),
        ("/stripped/ws", "WebSocket", ["websocket"]),
        ("/stripped/ws", "h2c", []),
        ("/stripped/ws", "websocket, h2c", []),
        ("/stripped/", "websocket", []),
        ("/kept/", "h2c", []),
    ],
)
def test_upgrade(balancer: Balancer, path: str, upgrade: str, arrives: list[str]) -> None:
    """Only a WebSocket, only on its route: anything else would be a tunnel past the rules."""
    sent = {"Upgrade": upgrade, "Connection": "Upgrade, HTTP2-Settings", "HTTP2-Settings": "AAMAAABk"}
    received = balancer.ask(path, headers=sent).received
    assert received.header("Upgrade") == arrives
    assert received.header("Connection") == (["upgrade"] if arrives else [])


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_method(balancer: Balancer, method: str) -> None:
    """The methods of web apps pass."""
    answer = balancer.ask("/kept/", method)
    assert answer.status == 200
    assert [received.method for received in balancer.arrived(answer.id)] == [method]


@pytest.mark.parametrize("method", ["TRACE", "FOO", "PROPFIND"])
@pytest.mark.parametrize("path", ["/kept/", "/one", "/nowhere"])
def test_other_method(balancer: Balancer, path: str, method: str) -> None:
    """Other methods end at the balancer."""
    answer = balancer.ask(path, method)
    assert answer.status == 405
    assert balancer.arrived(answer.id) == []


@pytest.mark.parametrize(("size", "status"), [(1024, 200), (1025, 413)])
@pytest.mark.parametrize("chunked", [False, True])
def test_body(balancer: Balancer, size: int, status: int, chunked: bool) -> None:
    """A body over the app's limit is refused before the app hears of it."""
    body = b"x" * size
    head = b"POST /small/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
    if chunked:
        request = head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (size, body)
    else:
        request = head + b"Content-Length: %d\r\n\r\n" % size + body
    answer = balancer.send(request)
    assert int(answer.split()[1]) == status
    (request_id,) = re.findall(rb"(?mi)^x-request-id: (\w+)", answer.partition(b"\r\n\r\n")[0])
    assert [received.body for received in balancer.arrived(request_id.decode())] == [size] * (status == 200)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/kept/", None, 200),
        ("GET", "/stripped", None, 301),
        ("GET", "/nowhere", None, 404),
        ("TRACE", "/kept/", None, 405),
        ("POST", "/small/", b"x" * 1025, 413),
        ("GET", "/dead/", None, 502),
        ("GET", "/kept/?status=503", None, 503),
    ],
)
def test_security_headers(
    balancer: Balancer, method: str, path: str, body: bytes | None, status: int
) -> None:
    """Each is there exactly once whatever happens, and nothing tells versions."""
    answer = balancer.ask(path, method, body)
    assert answer.status == status
    for name, value in ADDED.items():
        assert answer.header(name) == [value], name
    assert answer.header("Server") == ["nginx"]
    assert not re.search(rb"nginx/|Debian", answer.body)


@pytest.mark.parametrize("name", ADDED)
def test_the_app_decides(balancer: Balancer, name: str) -> None:
    """A security header of the app's own is the only one."""
    assert balancer.ask(f"/kept/?header={name}:mine").header(name) == ["mine"]


def test_nobody_learns_the_framework(balancer: Balancer) -> None:
    """What the app says of itself is not passed on."""
    assert balancer.ask("/kept/?header=X-Powered-By:Flask").header("X-Powered-By") == []


def test_one_id(balancer: Balancer) -> None:
    """Client, app and access log know a request by the same id, whatever the app answers."""
    answer = balancer.ask("/stripped/?header=X-Request-Id:other", "POST", b"abc")
    assert re.fullmatch("[0-9a-f]{32}", answer.id)
    assert answer.received.header("X-Request-Id") == [answer.id]
    line = balancer.logged("id", answer.id)
    assert (line["app"], line["method"], line["status"]) == ("stripped", "POST", 200)
    assert line["uri"] == "/stripped/?header=X-Request-Id:other"
    assert line["upstream"] == f"{answer.received.host}:9102"


@pytest.mark.parametrize(
    "nasty",
    [
        b'"quotes"',
        rb"back\slash\"",
        b"%ff%0a%22%5c",
        b"\xff\xfe",
        "gr\u00fc\u00dfe".encode(),
        b'","status":999,"x":"',
    ],
)
def test_log_is_json(balancer: Balancer, nasty: bytes) -> None:
    """No client can break a line of the log or forge a key."""
    uri = b"/kept/%b?%d" % (nasty, time.monotonic_ns())
    head = b"GET %b HTTP/1.1\r\nHost: a\r\nConnection: close\r\nUser-Agent: %b\r\n\r\n"
    answer = balancer.send(head % (uri, nasty))
    line = balancer.logged("uri", uri.decode(errors="replace"))
    assert line["status"] == int(answer.split()[1])
    assert line["agent"] == nasty.decode(errors="replace")


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01",
        b"GET /kept/\r\n",
        b'GET /kept/%00" HTTP/1.1\r\nHost: a\r\n\r\n',
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\r\n",
        b"GET",
        b"\x00" * 99,
    ],
)
def test_log_of_what_is_no_request(balancer: Balancer, garbage: bytes) -> None:
    """What is not HTTP/1 leaves no broken line either."""
    balancer.send(garbage, hang_up=True)
    after = balancer.ask("/kept/")
    assert balancer.logged("id", after.id)["status"] == 200


@pytest.mark.full
def test_log_is_rotated(balancer: Balancer) -> None:
    """The log cannot fill the disk, and Nginx goes on in the new file."""
    balancer.host.check_output("logrotate --force /etc/logrotate.d/nginx")
    assert balancer.host.service("logrotate.timer").is_enabled
    answer = balancer.ask("/kept/")
    assert balancer.logged("id", answer.id)["status"] == 200
    assert balancer.host.file("/var/log/nginx/access.log.1").size > 0
