"""What stands between the browser and the page."""

# A data URL of the largest picture, and what goes with it.
MAX_BODY = 16 * 2**20
# The browser itself refuses to ask any other machine for anything, whatever a run's files say.
POLICY = (
    b"default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    b"style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    b"connect-src 'self' data: blob:; worker-src 'self' blob:;"
    b" frame-ancestors 'self'; form-action 'self'"
)


class Guard:
    """ASGI middleware: refuses bodies that are too large before they are read, and adds `POLICY`.

    Args:
        app: the ASGI application behind it.
    """

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        async def send_with_policy(message):
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", []), (b"content-security-policy", POLICY)]
                message = {**message, "headers": headers}
            await send(message)

        if status := refusal(scope["method"], dict(scope["headers"])):
            text = b'{"detail": "More than %d MB cannot be sent here."}' % (MAX_BODY // 2**20)
            headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
            await send_with_policy({"type": "http.response.start", "status": status, "headers": headers})
            return await send({"type": "http.response.body", "body": text})
        await self.app(scope, receive, send_with_policy)


def refusal(method, headers):
    """The status with which a request is refused, or 0.

    Args:
        method: such as "POST".
        headers: bytes by their names, in small letters.
    """
    length = headers.get(b"content-length")
    if length is None:
        # A body of unknown length could have any.
        return 411 if method in ("POST", "PUT", "PATCH") or b"transfer-encoding" in headers else 0
    return 413 if not length.isdigit() or int(length) > MAX_BODY else 0
