"""The rows: what is sent, byte by byte, and what is to become of it.

`tag000000` becomes a word of its own each time, by which the apps' notes are known, and `echo.test`
the app's own name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

TAG = b"tag000000"
HEAD = b"GET /tag000000 HTTP/1.1\r\nHost: "
SMUGGLED = b"GET /smuggled/tag000000 HTTP/1.1\r\nHost: echo.test\r\n\r\n"


@dataclass(frozen=True)
class Row:
    """Bytes, and the verdicts of Nginx, of Gunicorn's gthread and of our Tornado worker."""

    name: str
    raw: bytes
    nginx: str
    gthread: str
    tornado: str
    # Where Nginx passes the app's own answer on, and the Tornado app's is another.
    nginx_tornado: str = ""
    # What the app must have parsed: a body other than `hello` of a POST, and the target where Nginx
    # makes another of it.
    body: bytes | None = None
    target: str = ""
    # Values that the app must have been told; None: the header must be missing.
    headers: Mapping[str, str | None] = field(default_factory=dict)


def get(
    *lines: bytes, target: bytes = b"/tag000000", method: bytes = b"GET", version: bytes = b"HTTP/1.1"
) -> bytes:
    """A request without a body, with more header lines."""
    first = method + b" " + target + b" " + version
    return b"\r\n".join([first, b"Host: echo.test", *lines, b"", b""])


def post(*lines: bytes, body: bytes = b"") -> bytes:
    """A POST whose framing is in its lines."""
    return get(*lines, method=b"POST") + body


def bad(path: bytes) -> bytes:
    """A request for an answer that no app should give. Nginx may ask twice for a GET, never for this."""
    return get(b"X-Tag: tag000000", b"Content-Length: 0", target=path, method=b"POST")


CHUNKED = b"Transfer-Encoding: chunked"
BIG = b"a" * 1048577
END = b"0\r\n\r\n"
HELLO = b"5\r\nhello\r\n" + END
ROWS = [
    Row("plain GET", get(), "200", "200", "200"),
    Row("plain POST", post(b"Content-Length: 5", body=b"hello"), "200", "200", "200"),
    Row("plain chunked", post(CHUNKED, body=HELLO), "200", "200", "200"),
    Row("two requests in one packet", get() + get(), "200 200", "200", "200 200"),
    # Framing
    Row(
        "H1 length and chunked",
        post(b"Content-Length: 5", CHUNKED, body=HELLO + SMUGGLED),
        "400",
        "400",
        "400",
    ),
    Row(
        "H1 chunked and length",
        post(CHUNKED, b"Content-Length: %d" % (5 + len(SMUGGLED)), body=END + SMUGGLED),
        "400",
        "400",
        "400",
    ),
    Row("H1 length 0 and chunked", post(b"Content-Length: 0", CHUNKED, body=HELLO), "400", "400", "400"),
    Row(
        "H2 two lengths, equal",
        post(b"Content-Length: 5", b"Content-Length: 5", body=b"hello"),
        "400",
        "400",
        "200",
    ),
    Row(
        "H2 two lengths, short first",
        post(b"Content-Length: 5", b"Content-Length: %d" % (5 + len(SMUGGLED)), body=b"hello" + SMUGGLED),
        "400",
        "400",
        "400",
    ),
    Row(
        "H2 two lengths, long first",
        post(b"Content-Length: %d" % (5 + len(SMUGGLED)), b"Content-Length: 5", body=b"hello" + SMUGGLED),
        "400",
        "400",
        "400",
    ),
    Row("H2 list of lengths", post(b"Content-Length: 5, 5", body=b"hello"), "400", "400", "200"),
    Row(
        "H2 list of lengths, unequal",
        post(b"Content-Length: 5, 6", body=b"hello" + SMUGGLED),
        "400",
        "400",
        "400",
    ),
    Row("H2 length with plus", post(b"Content-Length: +5", body=b"hello"), "400", "400", "400"),
    Row("H2 length negative", post(b"Content-Length: -5", body=b"hello"), "400", "400", "400"),
    Row("H2 length hexadecimal", post(b"Content-Length: 0x5", body=b"hello"), "400", "400", "400"),
    Row("H2 length with underscore", post(b"Content-Length: 0_5", body=b"hello"), "400", "400", "400"),
    Row("H2 length with a fraction", post(b"Content-Length: 5.0", body=b"hello"), "400", "400", "400"),
    Row("H2 length with a space inside", post(b"Content-Length: 5 0", body=b"hello"), "400", "400", "400"),
    Row("H2 length empty", post(b"Content-Length:", body=b"hello"), "400", "400", "400"),
    Row(
        "H2 length of 5000 digits",
        post(b"Content-Length: " + b"9" * 5000, body=b"hello"),
        "400",
        "400",
        "400",
    ),
    Row(
        "H2 length in Arabic digits",
        post("Content-Length: \u0665".encode(), body=b"hello"),
        "400",
        "400",
        "400",
    ),
    Row("H2 length with leading zeros", post(b"Content-Length: 0005", body=b"hello"), "200", "200", "200"),
    Row(
        "H2 space before the colon of the length",
        post(b"Content-Length : 5", body=b"hello"),
        "400",
        "400",
        "400",
    ),
    Row(
        "H2 body of a GET",
        get(b"Content-Length: %d" % len(SMUGGLED)) + SMUGGLED,
        "200",
        "200",
        "200",
        body=SMUGGLED,
    ),
    Row("H3 unknown coding", post(b"Transfer-Encoding: xchunked", body=HELLO), "501", "501", "400"),
    Row(
        "H3 chunked is not the last",
        post(b"Transfer-Encoding: chunked, identity", body=HELLO),
        "501",
        "400",
        "400",
    ),
    Row("H3 chunked after gzip", post(b"Transfer-Encoding: gzip, chunked", body=HELLO), "501", "200", "400"),
    Row(
        "H3 chunked twice in a list",
        post(b"Transfer-Encoding: chunked, chunked", body=HELLO),
        "501",
        "400",
        "400",
    ),
    Row("H3 chunked in two lines", post(CHUNKED, CHUNKED, body=HELLO), "400", "400", "400"),
    Row(
        "H3 chunked and identity in two lines",
        post(CHUNKED, b"Transfer-Encoding: identity", body=HELLO),
        "400",
        "400",
        "400",
    ),
    Row(
        "H3 identity and a length",
        post(b"Transfer-Encoding: identity", b"Content-Length: 5", body=b"hello" + SMUGGLED),
        "501",
        "400",
        "400",
    ),
    Row("H3 chunked in quotes", post(b'Transfer-Encoding: "chunked"', body=HELLO), "501", "501", "400"),
    Row(
        "H3 coding empty",
        post(b"Transfer-Encoding:", b"Content-Length: 5", body=b"hello" + SMUGGLED),
        "501",
        "501",
        "400",
    ),
    Row("H3 CHUNKED in upper case", post(b"TRANSFER-ENCODING: CHUNKED", body=HELLO), "200", "200", "200"),
    Row(
        "H3 chunked with a parameter",
        post(b"Transfer-Encoding: chunked;q=1", body=HELLO),
        "501",
        "501",
        "400",
    ),
    Row(
        "H3 chunked after a vertical tab",
        post(b"Transfer-Encoding: \x0bchunked", body=HELLO),
        "501",
        "400",
        "400",
    ),
    Row(
        "H3 underscore for the dash",
        post(b"Transfer_Encoding: chunked", b"Content-Length: 5", body=b"hello"),
        "200",
        "200",
        "200",
    ),
    Row(
        "H4 space before the colon",
        post(b"Transfer-Encoding : chunked", b"Content-Length: 5", body=b"hello"),
        "400",
        "400",
        "400",
    ),
    Row(
        "H4 tab before the colon",
        post(b"Transfer-Encoding\t: chunked", b"Content-Length: 5", body=b"hello"),
        "400",
        "400",
        "400",
    ),
    Row("H4 folded line", post(b"Transfer-Encoding:\r\n chunked", body=HELLO), "400", "400", "400"),
    Row("H4 folded line of another header", get(b"X-Folded: a\r\n b"), "400", "400", "400"),
    Row(
        "H4 chunked in HTTP/1.0",
        get(CHUNKED, method=b"POST", version=b"HTTP/1.0") + HELLO,
        "400",
        "400",
        "200",
    ),
    # Chunks
    *[
        Row(f"H5 chunk size {name}", post(CHUNKED, body=size + b"\r\nhello\r\n" + END), *verdicts.split())
        for name, size, verdicts in (
            ("0x5", b"0x5", "400 400 400"),
            ("negative", b"-5", "400 400 400"),
            ("with plus", b"+5", "400 400 400"),
            ("with underscore", b"0_5", "400 400 400"),
            ("empty", b"", "400 400 400"),
            ("no digit", b"g", "400 400 400"),
            ("with NUL", b"5\0", "400 400 400"),
            ("with a space before", b" 5", "400 400 400"),
            ("with a space after", b"5 ", "200 400 400"),
            ("with a tab after", b"5\t", "200 400 400"),
            ("of 65 bits", b"10000000000000005", "400 waits 400"),
            ("of 20 digits", b"5" * 20, "400 waits 400"),
            ("with leading zeros", b"00000005", "200 200 200"),
            ("with 3000 zeros", b"0" * 3000 + b"5", "200 200 closed"),
        )
    ],
    Row(
        "H5 chunk longer than its size", post(CHUNKED, body=b"5\r\nhelloworld\r\n" + END), "400", "400", "400"
    ),
    Row(
        "H5 chunk shorter than its size",
        post(CHUNKED, body=b"a\r\nhello\r\n" + END),
        "closed",
        "waits",
        "waits",
    ),
    Row("H5 no line end after a chunk", post(CHUNKED, body=b"5\r\nhello" + END), "400", "400", "400"),
    Row(
        "H5 trailer",
        post(CHUNKED, body=b"5\r\nhello\r\n0\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n"),
        "200",
        "200",
        "400",
    ),
    Row(
        "H5 trailer with a length",
        post(CHUNKED, body=b"5\r\nhello\r\n0\r\nContent-Length: 5\r\n\r\n"),
        "200",
        "400",
        "400",
    ),
    Row("H6 chunk lines end in LF", post(CHUNKED, body=b"5\nhello\n0\n\n"), "200", "waits", "waits"),
    Row("H6 a chunk's data ends in LF", post(CHUNKED, body=b"5\r\nhello\n" + END), "200", "400", "400"),
    Row("H7 extension", post(CHUNKED, body=b"5;a=b\r\nhello\r\n" + END), "200", "200", "400"),
    Row("H7 extension with CR", post(CHUNKED, body=b"5;a\rb\r\nhello\r\n" + END), "400", "400", "400"),
    Row("H7 extension with LF", post(CHUNKED, body=b"5;a\nb\r\nhello\r\n" + END), "400", "400", "400"),
    Row("H7 extension with NUL", post(CHUNKED, body=b"5;a\0b\r\nhello\r\n" + END), "200", "400", "400"),
    Row(
        "H7 extension of 20 kB",
        post(CHUNKED, body=b"5;" + b"a" * 20000 + b"\r\nhello\r\n" + END),
        "200",
        "400",
        "closed",
    ),
    # Host
    Row("H8 two hosts", get(b"Host: evil.test"), "400", "400", "400"),
    Row("H8 two equal hosts", get(b"Host: echo.test"), "400", "400", "400"),
    Row("H8 no host", b"GET /tag000000 HTTP/1.1\r\n\r\n", "400", "200", "400"),
    Row("H8 empty host", b"GET /tag000000 HTTP/1.1\r\nHost:\r\n\r\n", "400", "200", "200"),
    Row("H8 unknown host", HEAD + b"evil.test\r\n\r\n", "closed", "200", "200"),
    Row("H8 user in the host", HEAD + b"echo.test@evil.test\r\n\r\n", "closed", "200", "400"),
    Row("H8 host with a user", HEAD + b"evil.test@echo.test\r\n\r\n", "closed", "200", "400"),
    Row("H8 path in the host", HEAD + b"echo.test/evil\r\n\r\n", "400", "200", "400"),
    Row("H8 list of hosts", HEAD + b"echo.test, evil.test\r\n\r\n", "400", "200", "400"),
    Row("H8 two dots in the host", HEAD + b"echo..test\r\n\r\n", "400", "200", "200"),
    Row(
        "H8 host with a port",
        HEAD + b"echo.test:99\r\n\r\n",
        "200",
        "200",
        "200",
        headers={"HOST": "echo.test:99"},
    ),
    Row(
        "H8 host with a strange port",
        HEAD + b"echo.test:99evil\r\n\r\n",
        "200",
        "200",
        "200",
        headers={"HOST": "echo.test"},
    ),
    Row("H8 host in upper case with a dot", HEAD + b"ECHO.TEST.\r\n\r\n", "200", "200", "200"),
    Row("H8 no host in HTTP/1.0", b"GET /tag000000 HTTP/1.0\r\n\r\n", "closed", "200", "200"),
    Row(
        "H9 absolute target",
        get(target=b"http://echo.test/tag000000"),
        "200",
        "200",
        "200",
        target="/tag000000",
    ),
    Row(
        "H9 absolute target of another host",
        b"GET http://echo.test/tag000000 HTTP/1.1\r\nHost: evil.test\r\n\r\n",
        "200",
        "200",
        "200",
        target="/tag000000",
    ),
    Row(
        "H9 absolute target of an unknown host",
        get(target=b"http://evil.test/tag000000"),
        "closed",
        "200",
        "200",
    ),
    Row(
        "H9 absolute target with a user", get(target=b"http://evil@echo.test/tag000000"), "400", "200", "200"
    ),
    Row(
        "H9 absolute target of another scheme",
        get(target=b"gopher://echo.test/tag000000"),
        "200",
        "200",
        "200",
        target="/tag000000",
    ),
    Row(
        "H9 absolute target without a path",
        get(b"X-Tag: tag000000", target=b"http://echo.test"),
        "200",
        "200",
        "200",
        target="/",
    ),
    # Lines
    Row("H10 lines end in LF", get().replace(b"\r\n", b"\n"), "200", "400", "200"),
    Row("H10 lines end in CR", get().replace(b"\r\n", b"\r"), "400", "waits", "waits"),
    Row("H10 CR in a value", get(b"X-Evil: a\rX-Forwarded-For: 6.6.6.6"), "400", "400", "400"),
    Row(
        "H10 LF in a value",
        get(b"X-Evil: a\nX-Other: 1"),
        "200",
        "400",
        "200",
        headers={"X-EVIL": "a", "X-OTHER": "1"},
    ),
    Row("H10 header without a colon", get(b"evil"), "200", "400", "400", headers={"EVIL": ""}),
    Row("H10 header without a name", get(b": evil"), "400", "400", "400"),
    Row(
        "H10 space before the first header",
        b"GET /tag000000 HTTP/1.1\r\n Host: echo.test\r\nHost: echo.test\r\n\r\n",
        "400",
        "400",
        "400",
    ),
    Row("H10 space in a name", get(b"X Evil: 1"), "400", "400", "400"),
    Row("H10 separators in a name", get(b"X(Evil): 1"), "200", "400", "400"),
    Row("H10 name with high bytes", get(b"X-\xe9vil: 1"), "200", "400", "400"),
    Row("H10 value with high bytes", get(b"X-Evil: \xe9\xff"), "200", "200", "200"),
    Row("H10 value with control bytes", get(b"X-Evil: \x01\x7f"), "400", "400", "400"),
    Row("H10 empty lines before the request", b"\r\n\r\n" + get(), "200", "400", "400"),
    Row("H10 spaces before the request", b"  " + get(), "400", "400", "400"),
    Row(
        "H10 many spaces in the request line",
        b"GET    /tag000000    HTTP/1.1\r\nHost: echo.test\r\n\r\n",
        "200",
        "400",
        "400",
    ),
    Row(
        "H10 tab in the request line",
        b"GET\t/tag000000\tHTTP/1.1\r\nHost: echo.test\r\n\r\n",
        "400",
        "400",
        "400",
    ),
    Row("H10 space in the target", get(target=b"/tag000000 /evil"), "400", "400", "400"),
    Row("H11 NUL in a value", get(b"X-Evil: a\0b"), "400", "400", "400"),
    Row("H11 NUL in a name", get(b"X-E\0vil: a"), "400", "400", "400"),
    Row("H11 NUL in the target", get(target=b"/tag000000\0"), "400", "400", "400"),
    Row("H11 %00 in the target", get(target=b"/tag000000%00"), "400", "200", "200"),
    Row(
        "H12 raw UTF-8 in the path",
        get(target="/tag000000/\u00e9".encode()),
        "400",
        "400",
        "200",
        nginx_tornado="200",
    ),
    Row("H12 encoded overlong slash", get(target=b"/tag000000/%c0%af"), "200", "200", "200"),
    Row("H12 control byte in the target", get(target=b"/tag000000\x01"), "400", "400", "400"),
    Row("H12 malformed percent", get(target=b"/tag000000%zz"), "400", "200", "200"),
    Row("H12 percent at the end", get(target=b"/tag000000%"), "400", "200", "200"),
    Row("H12 fragment in the target", get(target=b"/tag000000#evil"), "200", "200", "200"),
    Row("H12 backslash in the target", get(target=b"/tag000000\\..\\evil"), "200", "200", "200"),
    Row("H13 above the root", get(b"X-Tag: tag000000", target=b"/../../etc/passwd"), "400", "200", "200"),
    Row(
        "H13 above the root, encoded",
        get(b"X-Tag: tag000000", target=b"/%2e%2e/%2e%2e/etc/passwd"),
        "400",
        "200",
        "200",
    ),
    Row("H13 dots below the root", get(target=b"/a/../tag000000"), "400", "200", "200"),
    Row("H13 encoded slash", get(target=b"/tag000000%2f..%2fevil"), "400", "200", "200"),
    Row("H13 out of a stripped prefix", get(target=b"/stripped/../tag000000"), "400", "200", "200"),
    Row(
        "H13 dots that are names", get(target=b"/tag000000/..a/.well-known/b../...?/../"), "200", "200", "200"
    ),
    Row(
        "H13 dots in a stripped prefix, encoded twice",
        get(target=b"/stripped/%252e%252e/tag000000"),
        "200",
        "200",
        "200",
        target="/%252e%252e/tag000000",
    ),
    Row("H13 slashes", get(target=b"//evil.test//tag000000"), "200", "200", "200"),
    # Versions and methods
    Row("H14 HTTP/0.9", b"GET /tag000000\r\n", "closed", "400", "waits"),
    Row("H14 HTTP/0.9 of a host", b"GET /tag000000\r\nHost: echo.test\r\n\r\n", "closed", "400", "400"),
    Row("H14 HTTP/3.1", get(version=b"HTTP/3.1"), "505", "400", "400"),
    Row("H14 HTTP/1.2", get(version=b"HTTP/1.2"), "200", "200", "200"),
    Row("H14 HTTP/1.10", get(version=b"HTTP/1.10"), "200", "400", "400"),
    Row("H14 HTTP/01.1", get(version=b"HTTP/01.1"), "400", "400", "400"),
    Row("H14 http/1.1", get(version=b"http/1.1"), "400", "400", "400"),
    Row("H14 HTTX/1.1", get(version=b"HTTX/1.1"), "400", "400", "400"),
    Row("H14 ICY", b"ICY /tag000000 ICY/1.1\r\nHost: echo.test\r\n\r\n", "400", "400", "400"),
    Row(
        "H14 preface of HTTP/2",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0",
        "400",
        "400",
        "400",
    ),
    Row(
        "H14 hello of TLS",
        b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + b"\x42" * 158,
        "400",
        "waits",
        "waits",
    ),
    Row("H14 garbage", bytes(range(128, 256)) * 4, "400", "waits", "waits"),
    Row("H14 nothing but line ends", b"\r\n" * 200, "closed", "400", "400"),
    Row("H15 TRACE", get(method=b"TRACE"), "405", "200", "405"),
    Row(
        "H15 CONNECT",
        get(b"X-Tag: tag000000", method=b"CONNECT", target=b"echo.test:80"),
        "400",
        "200",
        "405",
    ),
    Row("H15 OPTIONS *", get(b"X-Tag: tag000000", method=b"OPTIONS", target=b"*"), "400", "200", "200"),
    Row("H15 GET *", get(b"X-Tag: tag000000", target=b"*"), "400", "400", "200"),
    Row("H15 get", get(method=b"get"), "400", "400", "405"),
    Row("H15 FOO", get(method=b"FOO"), "405", "200", "405"),
    Row("H15 method of 5000 letters", get(method=b"G" * 5000), "405", "400", "405"),
    Row("H15 method with a slash", get(method=b"GET/"), "400", "400", "400"),
    Row("H15 method in the override", get(b"X-HTTP-Method-Override: DELETE"), "200", "200", "200"),
    # Headers that others write
    Row("H16 X_Forwarded_For", get(b"X_Forwarded_For: 6.6.6.6"), "200", "200", "200"),
    Row("H16 SCRIPT_NAME", get(b"SCRIPT_NAME: /evil"), "200", "200", "200"),
    Row("H16 Script-Name", get(b"Script-Name: /evil"), "200", "200", "200"),
    Row("H16 PATH_INFO", get(b"PATH_INFO: /evil"), "200", "200", "200"),
    Row(
        "H17 spoofed headers",
        get(
            b"X-Forwarded-For: 6.6.6.6",
            b"X-Real-IP: 6.6.6.6",
            b"X-Forwarded-Proto: https",
            b"X-Forwarded-Host: evil.test",
            b"X-Forwarded-Port: 666",
            b"X-Forwarded-Ssl: on",
            b"X-Forwarded-Protocol: ssl",
            b"X-Forwarded-Prefix: /evil",
            b"Forwarded: for=6.6.6.6",
            b"Proxy: http://evil.test/",
            b"X-Request-Id: evil",
        ),
        "200",
        "200",
        "200",
    ),
    Row(
        "H17 list of spoofed addresses",
        get(b"X-Forwarded-For: 6.6.6.6, 7.7.7.7", b"X-Forwarded-For: 8.8.8.8"),
        "200",
        "200",
        "200",
    ),
    Row(
        "H18 hop-by-hop of ours",
        get(b"Connection: close, X-Forwarded-For, X-Request-Id, Host"),
        "200",
        "200",
        "200",
    ),
    Row(
        "H19 upgrade to h2c",
        get(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAAP__"),
        "200",
        "200",
        "200",
    ),
    Row(
        "H19 upgrade to a WebSocket where there is none",
        get(
            b"Connection: Upgrade",
            b"Upgrade: websocket",
            b"Sec-WebSocket-Version: 13",
            b"Sec-WebSocket-Key: cGFkZG9jay1wYWRkb2NrIQ==",
        ),
        "200",
        "200",
        "200",
    ),
    # Sizes
    Row("H20 80 headers", get(*(b"X-%d: 1" % number for number in range(80))), "200", "200", "200"),
    Row(
        "H20 150 headers",
        get(*(b"X-%d: 1" % number for number in range(150))),
        "400",
        "431",
        "200",
    ),
    Row("H20 3000 headers", get(*(b"X-%d: 1" % number for number in range(3000))), "400", "431", "200"),
    Row("H20 header of 7 kB", get(b"X-Long: " + b"a" * 7000), "200", "200", "200"),
    Row("H20 header of 9 kB", get(b"X-Long: " + b"a" * 9000), "400", "431", "200"),
    Row(
        "H20 headers of 40 kB",
        get(*(b"X-%d: " % number + b"a" * 7000 for number in range(6))),
        "400",
        "200",
        "200",
    ),
    Row("H20 target of 5 kB", get(target=b"/tag000000?" + b"a" * 5000), "200", "200", "200"),
    Row("H20 target of 8100 bytes", get(target=b"/tag000000?" + b"a" * 8089), "200", "200", "200"),
    Row("H20 target of 9 kB", get(target=b"/tag000000?" + b"a" * 9000), "414", "414", "200"),
    Row("H21 body over the limit", post(b"Content-Length: 1048577", body=BIG), "413", "200", "200", body=BIG),
    Row(
        "H21 chunked body over the limit",
        post(CHUNKED, body=b"100001\r\n" + BIG + b"\r\n" + END),
        "413",
        "200",
        "200",
        body=BIG,
    ),
    Row(
        "H21 body at the limit",
        post(b"Content-Length: 1048576", body=BIG[1:]),
        "200",
        "200",
        "200",
        body=BIG[1:],
    ),
    Row(
        "H22 100-continue",
        post(b"Expect: 100-continue", b"Content-Length: 5", body=b"hello"),
        "100 200",
        "100 200",
        "100 200",
    ),
    Row(
        "H22 unknown expectation",
        post(b"Expect: foo", b"Content-Length: 5", body=b"hello"),
        "200",
        "417",
        "200",
    ),
    Row(
        "H23 500 ranges",
        get(b"Range: bytes=" + b",".join(b"%d-" % number for number in range(500))),
        "200",
        "200",
        "200",
    ),
    Row("H25 line end in the path", get(target=b"/tag000000%0d%0aX-Injected:%20yes"), "200", "200", "200"),
    Row(
        "H25 line end in a stripped path",
        get(target=b"/stripped/tag000000%0d%0aX-Injected:%20yes"),
        "200",
        "200",
        "200",
        target="/tag000000%0d%0aX-Injected:%20yes",
    ),
    Row(
        "H25 line end in a redirect",
        get(b"X-Tag: tag000000", target=b"/redirect?to=/a%0d%0aX-Injected:%20yes"),
        "500",
        "500",
        "500",
    ),
    Row(
        "H25 line end in Nginx's own redirect",
        get(b"X-Tag: tag000000", target=b"/stripped?%0d%0aX-Injected:%20yes"),
        "301",
        "200",
        "200",
    ),
    Row("H29 megabyte of a header", bad(b"/huge_header"), "502", "200", "200", body=b""),
    Row("H29 response in a header", bad(b"/split_header"), "500", "500", "500", body=b""),
    Row("H29 less than announced", bad(b"/too_little"), "200 cut", "200 cut", "200 cut", body=b""),
    Row("H29 more than announced", bad(b"/too_much"), "200", "200", "closed", nginx_tornado="502", body=b""),
]
