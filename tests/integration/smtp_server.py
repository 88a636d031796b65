"""A mail server for the tests: takes mail for anybody from one user, over TLS only, and keeps each in two files.

Usage: smtp_server.py starttls|tls CERTIFICATE KEY FOLDER, with SMTP_USER and SMTP_PASSWORD in the environment.
Prints `port N` once it listens on 127.0.0.1. NNNN.eml is the mail as it came, NNNN.json its envelope; the second is
written under another name and renamed, so that whoever sees it sees both whole.

Addresses that begin with `later` are refused for now (450), those that begin with `never` for good (550).
"""

import asyncio
import json
import os
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword


class Keeper:
    def __init__(self, folder):
        self.folder = folder
        self.taken = 0

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("later"):
            return "450 4.2.0 not now"
        if address.startswith("never"):
            return "550 5.1.1 no such user"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 ok"

    async def handle_DATA(self, server, session, envelope):
        self.taken += 1
        path = os.path.join(self.folder, f"{self.taken:04}")
        with open(path + ".eml", "wb") as file:
            file.write(envelope.content)
        with open(path + ".part", "w") as file:
            json.dump({"from": envelope.mail_from, "to": envelope.rcpt_tos}, file)
        os.rename(path + ".part", path + ".json")
        return "250 2.0.0 taken"


def authenticate(server, session, envelope, mechanism, given):
    wanted = LoginPassword(os.environ["SMTP_USER"].encode(), os.environ["SMTP_PASSWORD"].encode())
    # Not handled: the server itself answers 535 where it is not them.
    return AuthResult(success=given == wanted, handled=False)


async def serve(protection, certificate, key, folder):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    keeper = Keeper(folder)

    def connection():
        starttls = protection == "starttls"
        return SMTP(
            keeper,
            hostname="localhost",
            authenticator=authenticate,
            auth_required=True,
            # Where TLS is there from the start, AUTH needs no STARTTLS before it.
            auth_require_tls=starttls,
            tls_context=tls if starttls else None,
            require_starttls=starttls,
        )

    loop = asyncio.get_running_loop()
    server = await loop.create_server(connection, "127.0.0.1", 0, ssl=tls if protection == "tls" else None)
    print("port", server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:]))
