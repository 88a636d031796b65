"""A real SMTP server for the tests, made of aiosmtpd.

Usage: sink.py SECURITY AUTH [CERTIFICATE KEY]
  SECURITY  none | starttls | tls
  AUTH      none | plain | login   (user `farm`, password `secret word`)

Prints one JSON object a line: first {"port": N}, then {"connected": N} for each connection and {"from", "to", "tls", "auth",
"content"} for each mail taken. What the local part of a recipient says, it does:
  later    450 the first time, then takes it        never    550
  spam     554 after the mail                       busy     421, and closes
Ends when its standard input ends.
"""

import asyncio
import json
import logging
import ssl
import sys
import warnings

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword


def say(**fields):
    print(json.dumps(fields), flush=True)


class Sink:
    def __init__(self):
        self.deferred = set()

    async def handle_RCPT(self, server, session, envelope, address, options):
        local = address.split("@")[0]
        if local == "never":
            return f"550 5.1.1 <{address}>: no such user"
        if local == "busy":
            return "421 4.3.2 shutting down"
        if local == "later" and address not in self.deferred:
            self.deferred.add(address)
            return f"450 4.2.0 <{address}>: greylisted, come again"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        if any(to.startswith("spam@") for to in envelope.rcpt_tos):
            return "554 5.7.1 looks like spam"
        say(**{
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "tls": server.transport.get_extra_info("ssl_object") is not None,
            "auth": bool(session.authenticated),
            "content": envelope.content.decode("utf-8", "replace"),
        })
        return "250 OK"


class Counting(SMTP):
    connections = 0

    def connection_made(self, transport):
        # A second call on the same connection is the end of its TLS handshake.
        if self.session is None:
            Counting.connections += 1
            say(connected=Counting.connections)
        super().connection_made(transport)


def authenticate(server, session, envelope, mechanism, login):
    right = isinstance(login, LoginPassword) and (login.login, login.password) == (b"farm", b"secret word")
    return AuthResult(success=right, handled=False)


async def main(security, auth, certificate=None, key=None):
    context = None
    if security != "none":
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, key)
    sink = Sink()
    options = {}
    if security == "starttls":
        options.update(tls_context=context, require_starttls=True)
    if auth != "none":
        other = "LOGIN" if auth == "plain" else "PLAIN"
        options.update(
            authenticator=authenticate,
            auth_required=True,
            auth_require_tls=security == "starttls",
            auth_exclude_mechanism=[other],
        )
    server = await asyncio.get_running_loop().create_server(
        lambda: Counting(sink, hostname="sink.test", **options),
        host="127.0.0.1",
        port=0,
        ssl=context if security == "tls" else None,
    )
    say(port=server.sockets[0].getsockname()[1])
    await asyncio.to_thread(sys.stdin.read)
    server.close()


# Failed logins and handshakes are what the tests are about.
logging.getLogger("mail.log").setLevel(logging.CRITICAL)
warnings.simplefilter("ignore")
asyncio.run(main(*sys.argv[1:]))
