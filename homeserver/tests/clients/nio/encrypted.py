"""Chapters in an encrypted room: messages, files, verification of one device by another."""

import io
import secrets

from nio import RoomEncryptedFile, RoomMessageText
from nio.crypto import decrypt_attachment
from nio.responses import MemoryDownloadResponse

from device import done
from steps import must

ENCRYPTION = {"type": "m.room.encryption", "state_key": "", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}
FILE_BYTES = 100_000


async def conversation(steps, alice, bob, bob_phone):
    async def make_room():
        room_id = done(await alice.nio.room_create(invite=[bob.nio.user_id], is_direct=True, initial_state=[ENCRYPTION])).room_id
        await bob.until(lambda: room_id in bob.nio.invited_rooms)
        done(await bob.nio.join(room_id))
        for device in (alice, bob, bob_phone):
            await device.until(lambda: room_id in device.nio.rooms and device.nio.rooms[room_id].encrypted and len(device.nio.rooms[room_id].users) == 2)
        return room_id

    room_id = await steps.need("alice makes an encrypted room and bob joins it", make_room)

    async def heard(speaker, listeners, body):
        event_id = await speaker.say(room_id, body)
        for listener in listeners:
            event = await listener.sees(event_id)
            must(isinstance(event, RoomMessageText), f"{listener.nio.device_id} decrypts it: {type(event).__name__}")
            must(event.decrypted and event.body == body, f"reads {event.body!r}")

    await steps.step("alice speaks, both of bob's devices read it", lambda: heard(alice, [bob, bob_phone], "hello bob"))
    await steps.step("bob answers, alice and his phone read it", lambda: heard(bob, [alice, bob_phone], "hello alice"))
    await steps.step("bob's phone speaks too", lambda: heard(bob_phone, [alice, bob], "and hello from the phone"))

    async def send_file():
        plain = secrets.token_bytes(FILE_BYTES)
        answer, keys = await alice.nio.upload(lambda *_: io.BytesIO(plain), "application/pdf", "report.pdf", encrypt=True, filesize=len(plain))
        uri = done(answer).content_uri
        content = {"msgtype": "m.file", "body": "report.pdf", "info": {"size": len(plain), "mimetype": "application/pdf"}, "file": {**keys, "url": uri}}
        event = await bob.sees(await alice.send(room_id, "m.room.message", content))
        must(isinstance(event, RoomEncryptedFile), f"bob sees a file: {type(event).__name__}")
        file = done(await bob.nio.download(event.url))
        must(isinstance(file, MemoryDownloadResponse), "the file comes back")
        must(decrypt_attachment(file.body, event.key["k"], event.hashes["sha256"], event.iv) == plain, "and is the same")

    await steps.step("alice sends an encrypted file, bob downloads and decrypts the same bytes", send_file)


async def verification(steps, alice, bob):
    async def verify():
        await alice.until(lambda: bob.nio.device_id in {device.device_id for device in alice.nio.device_store.active_user_devices(bob.nio.user_id)})
        target = alice.nio.device_store[bob.nio.user_id][bob.nio.device_id]
        done(await alice.nio.start_key_verification(target))
        [transaction] = list(alice.nio.key_verifications)
        theirs = await bob.until(lambda: bob.nio.key_verifications.get(transaction))
        done(await bob.nio.accept_key_verification(transaction))
        ours = alice.nio.key_verifications[transaction]
        await alice.until(lambda: ours.state.name != "created" and ours.state.name != "started")
        # each side sends its key when the other's message has come: a few syncs of both
        while not (ours.established_sas and theirs.established_sas):
            await bob.sync()
            await alice.sync()
        must(ours.get_emoji() == theirs.get_emoji(), "both show the same emoji")
        done(await alice.nio.confirm_short_auth_string(transaction))
        done(await bob.nio.confirm_short_auth_string(transaction))
        await alice.until(lambda: ours.verified)
        await bob.until(lambda: theirs.verified)
        must(alice.nio.device_store[bob.nio.user_id][bob.nio.device_id].verified, "alice holds bob's device for verified")
        must(bob.nio.device_store[alice.nio.user_id][alice.nio.device_id].verified, "bob holds alice's device for verified")

    await steps.step("alice and bob verify their devices by emoji over to-device messages", verify)
