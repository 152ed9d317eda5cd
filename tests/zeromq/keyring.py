"""CURVE keys of a broker and of its clients, in files."""

import zmq

from gateway_zeromq.security.keys import load_pair, load_public, write_pair


class Keyring:
    """A server's key, and a directory of clients' public keys."""

    def __init__(self, directory):
        self.directory = directory
        self.clients = directory / "clients"
        self.secrets = directory / "secrets"
        for folder in (self.clients, self.secrets):
            folder.mkdir()
        self.server_file, self.server_public_file = write_pair(directory, "server")
        self.server = load_public(self.server_public_file)

    def make(self, name):
        """Make a client's key that nobody knows yet; return its secret file."""
        return write_pair(self.secrets, name)[0]

    def allow(self, name):
        """Make a client's key, if there is none, and let it in."""
        if not (self.secrets / f"{name}.key").exists():
            self.make(name)
        (self.clients / f"{name}.key").write_bytes((self.secrets / f"{name}.key").read_bytes())
        return self.options(name)

    def options(self, name, server=None):
        """Return the socket options of a client."""
        pair = load_pair(self.secrets / f"{name}.key_secret")
        return {
            "CURVE_SECRETKEY": pair.secret,
            "CURVE_PUBLICKEY": pair.public,
            "CURVE_SERVERKEY": server or self.server,
        }

    def settings(self, **more):
        return {"security": "curve", "secret_key_file": str(self.server_file), "client_keys": str(self.clients), **more}


def other_key():
    return zmq.curve_keypair()[0]
