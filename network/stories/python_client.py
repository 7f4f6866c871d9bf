"""The published Python client on the real network: `GENKAN_TEST_NETWORK=<map.json> python python_client.py`.

Genkan's tokens live for a minute on this network, and this client refreshes a token that has less than fifteen minutes
left. So it refreshes before every call, at the account's host.
"""

import json
import os
import secrets
import struct
import sys
import unittest
import urllib.request
import zlib

from atproto import Client, models
from atproto_client.exceptions import AtProtocolError

with open(os.environ["GENKAN_TEST_NETWORK"], encoding="utf-8") as file:
    MAP = json.load(file)
GENKAN = MAP["genkan"]["url"]


def noise(side=256):
    """A valid PNG of noise. Hosts read the bytes of a blob to find its type."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + secrets.token_bytes(3 * side) for _ in range(side))
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


PICTURE = noise()


class PinnedClient(Client):
    """A client that stays at its first server, even if the DID document names another one."""

    def _update_pds_endpoint(self, pds_endpoint):
        pass


def sign_up():
    name = "py-" + secrets.token_hex(4)
    person = {"handle": name + MAP["genkan"]["handleDomain"], "email": name + "@example.com", "password": secrets.token_hex(8)}
    made = Client(GENKAN).com.atproto.server.create_account(models.ComAtprotoServerCreateAccount.Data(**person))
    return made.did, person


def home_of(did):
    with urllib.request.urlopen(f"{MAP['plc']['url']}/{did}/data") as answer:
        return json.load(answer)["services"]["atproto_pds"]["endpoint"]


class Stories(unittest.TestCase):
    def signed_in(self, client, did, person):
        client.login(person["handle"], person["password"])
        self.assertEqual(client._session.did, did)
        return client

    def writes_and_reads_back(self, client, did):
        blob = client.upload_blob(PICTURE).blob
        image = models.AppBskyEmbedImages.Image(alt="noise", image=blob)
        embed = models.AppBskyEmbedImages.Main(images=[image])
        post = client.send_post("from Python", profile_identify=did, embed=embed)

        reader = Client(GENKAN)
        collection, rkey = post.uri.split("/")[-2:]
        params = models.ComAtprotoRepoGetRecord.Params(repo=did, collection=collection, rkey=rkey)
        record = reader.com.atproto.repo.get_record(params)
        self.assertEqual(record.cid, post.cid)
        self.assertEqual(record.value.text, "from Python")
        picture = reader.com.atproto.sync.get_blob({"did": did, "cid": blob.ref.link})
        self.assertEqual(picture, PICTURE)

        self.assertTrue(client.delete_post(post.uri))
        with self.assertRaises(AtProtocolError):
            reader.com.atproto.repo.get_record(params)

    def test_it_is_switched_to_its_host_and_genkan_shows_the_post(self):
        did, person = sign_up()
        client = self.signed_in(Client(GENKAN), did, person)
        self.assertEqual(client._base_url, home_of(did) + "/xrpc")
        self.writes_and_reads_back(client, did)
        self.assertEqual(client._base_url, home_of(did) + "/xrpc")

    def test_pinned_to_genkan_it_does_all_of_it_there(self):
        did, person = sign_up()
        client = self.signed_in(PinnedClient(GENKAN), did, person)
        self.assertEqual(client._base_url, GENKAN + "/xrpc")
        self.writes_and_reads_back(client, did)

    def test_a_session_is_exported_taken_up_again_and_ended(self):
        did, person = sign_up()
        exported = self.signed_in(Client(GENKAN), did, person).export_session_string()
        client = Client()
        client.login(session_string=exported, fetch_bsky_profile=False)
        session = client.com.atproto.server.get_session()
        self.assertEqual((session.did, session.handle), (did, person["handle"]))
        self.assertNotEqual(client.export_session_string(), exported)

        client.com.atproto.server.delete_session(headers=client._get_refresh_auth_headers())
        with self.assertRaises(AtProtocolError) as refused:
            client._refresh_and_set_session()
        self.assertEqual(refused.exception.response.content.error, "ExpiredToken")

    def test_a_wrong_password_is_an_error_of_its_own(self):
        _, person = sign_up()
        with self.assertRaises(AtProtocolError) as refused:
            Client(GENKAN).login(person["handle"], "not the password")
        self.assertEqual(refused.exception.response.status_code, 401)
        self.assertEqual(refused.exception.response.content.error, "AuthenticationRequired")


if __name__ == "__main__":
    ended = unittest.TextTestRunner(verbosity=2).run(unittest.defaultTestLoader.loadTestsFromTestCase(Stories))
    failed = len(ended.failures) + len(ended.errors)
    print(f"{ended.testsRun - failed} passed, {failed} failed, {len(ended.skipped)} skipped")
    sys.exit(1 if failed else 0)
