"""A WSGI application that says who has answered."""

import os

NAME = f"{os.environ['KEEPALIVE_SERVICE']}.{os.environ['KEEPALIVE_INSTANCE']}"


def application(environ, start_response):
    body = f"{NAME}, process {os.getpid()}\n".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
