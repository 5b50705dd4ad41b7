"""One nio client that syncs only when told to, so that what it has seen at any point is known."""

import hashlib
import hmac
import json
import os
import tempfile
import urllib.request

from nio import AsyncClient, AsyncClientConfig, ErrorResponse, SyncResponse

# How long one /sync may wait for news. The step around it bounds the whole.
SYNC_WAIT_MS = 5_000
REQUEST_SECONDS_MAX = 30


def done(response):
    """The response, unless it is one of nio's many error responses."""
    if isinstance(response, ErrorResponse):
        raise AssertionError(f"{type(response).__name__}: {response}")
    return response


def register_by_secret(base_url, secret, name, password):
    """Registers through the shared secret endpoint that provisioning tools use; returns the user id."""
    url = f"{base_url}/_synapse/admin/v1/register"
    with urllib.request.urlopen(url, timeout=REQUEST_SECONDS_MAX) as answer:
        nonce = json.load(answer)["nonce"]
    mac = hmac.new(secret.encode(), "\0".join([nonce, name, password, "notadmin"]).encode(), hashlib.sha1).hexdigest()
    body = {"nonce": nonce, "username": name, "password": password, "admin": False, "mac": mac}
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=REQUEST_SECONDS_MAX) as answer:
        return json.load(answer)["user_id"]


class Device:
    """A logged-in client, the events it has been shown in order, and bounded waits on them."""

    def __init__(self, base_url, user):
        self._store = tempfile.TemporaryDirectory(prefix="nio-store-")
        config = AsyncClientConfig(encryption_enabled=True, max_timeouts=2, max_limit_exceeded=0, request_timeout=REQUEST_SECONDS_MAX)
        self.nio = AsyncClient(base_url, user, store_path=self._store.name, config=config)
        self.seen = []
        self.syncs = []

    async def sync(self, **options):
        """One /sync and the key requests that a client owes afterwards."""
        response = done(await self.nio.sync(timeout=SYNC_WAIT_MS, **options))
        assert isinstance(response, SyncResponse)
        self.syncs.append(response)
        for room_id, room in response.rooms.join.items():
            self.seen += [(room_id, event) for event in room.timeline.events]
        if self.nio.olm:
            done_or_nothing = []
            if self.nio.should_upload_keys:
                done_or_nothing.append(await self.nio.keys_upload())
            if self.nio.should_query_keys:
                done_or_nothing.append(await self.nio.keys_query())
            if self.nio.should_claim_keys:
                done_or_nothing.append(await self.nio.keys_claim(self.nio.get_users_for_key_claiming()))
            for answer in done_or_nothing:
                done(answer)
            await self.nio.send_to_device_messages()
        return response

    async def until(self, check):
        """Syncs until `check` gives something true, and returns that. The step around it bounds the wait."""
        while not (found := check()):
            await self.sync()
        return found

    def event(self, event_id):
        return next((event for _, event in self.seen if event.event_id == event_id), None)

    async def sees(self, event_id):
        return await self.until(lambda: self.event(event_id))

    async def say(self, room_id, body, **more):
        content = {"msgtype": "m.text", "body": body, **more}
        return await self.send(room_id, "m.room.message", content)

    async def send(self, room_id, event_type, content):
        return done(await self.nio.room_send(room_id, event_type, content, ignore_unverified_devices=True)).event_id

    async def request(self, method, path, body=None):
        """A raw request, for what nio has no call for. Returns the status and the JSON answer."""
        headers = {"Authorization": f"Bearer {self.nio.access_token}"}
        data = None if body is None else json.dumps(body)
        async with self.nio.client_session.request(method, self.nio.homeserver + path, data=data, headers=headers) as answer:
            return answer.status, await answer.json()

    async def close(self):
        await self.nio.close()
        self._store.cleanup()


def environment(name):
    value = os.environ.get(name)
    if not value:
        raise SystemExit(f"set {name}")
    return value
