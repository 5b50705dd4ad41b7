"""Chapters without encryption: profiles, rooms and their state, messages, filters, media, membership, devices, logout."""

import io
import json
import struct
import zlib
from urllib.parse import quote

from nio import (
    JoinedMembersError,
    PushRuleKind,
    RoomMessageText,
    RoomPreset,
    RoomPutStateError,
    RoomTypingError,
    RoomVisibility,
    RoomReadMarkersError,
    TypingNoticeEvent,
    ReceiptEvent,
    WhoamiError,
)
from nio.api import MessageDirection, RelationshipType, ResizingMethod
from nio.events import PushNotify
from nio.responses import DeleteDevicesAuthResponse

from device import done
from steps import must


def png(width, height):
    """A small picture in one colour, made here so that the thumbnail has something to shrink."""
    rows = (b"\0" + b"\x30\x90\x60" * width) * height

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


async def upload(device, body, content_type, name):
    answer, _ = await device.nio.upload(lambda *_: io.BytesIO(body), content_type, name, filesize=len(body))
    return done(answer).content_uri


async def accounts(steps, alice, bob):
    async def who():
        answer = done(await bob.nio.whoami())
        must(answer.user_id == bob.nio.user_id and answer.device_id == bob.nio.device_id, f"whoami says {answer}")

    await steps.step("bob asks who he is", who)

    async def profile():
        done(await alice.nio.set_displayname("Alice in Town"))
        picture = await upload(alice, png(64, 64), "image/png", "alice.png")
        done(await alice.nio.set_avatar(picture))
        seen = done(await bob.nio.get_profile(alice.nio.user_id))
        must(seen.displayname == "Alice in Town" and seen.avatar_url == picture, f"bob sees {seen}")

    await steps.step("alice sets her name and picture, bob sees both", profile)

    async def presence():
        done(await alice.nio.set_presence("online", "at her desk"))
        seen = done(await alice.nio.get_presence(alice.nio.user_id))
        must(seen.presence == "online" and seen.status_msg == "at her desk", f"presence is {seen}")

    await steps.step("alice says she is online and why", presence)

    async def openid():
        answer = done(await alice.nio.get_openid_token(alice.nio.user_id))
        must(answer.access_token and answer.token_type == "Bearer" and answer.expires_in > 0, f"the token: {answer}")

    await steps.step("alice gets an OpenID token for another service", openid)

    async def push_rule():
        done(await alice.nio.set_pushrule("global", PushRuleKind.content, "tea", pattern="tea", actions=[PushNotify()]))
        status, rule = await alice.request("GET", "/_matrix/client/v3/pushrules/global/content/tea")
        must(status == 200 and rule["pattern"] == "tea" and rule["enabled"], f"{status} {rule}")
        done(await alice.nio.enable_pushrule("global", PushRuleKind.content, "tea", False))
        status, answer = await alice.request("GET", "/_matrix/client/v3/pushrules/global/content/tea/enabled")
        must(answer == {"enabled": False}, f"{status} {answer}")
        done(await alice.nio.delete_pushrule("global", PushRuleKind.content, "tea"))
        status, _ = await alice.request("GET", "/_matrix/client/v3/pushrules/global/content/tea")
        must(status == 404, f"a deleted rule answers {status}")

    await steps.step("alice makes a push rule, switches it off and deletes it", push_rule)


async def room(steps, alice, bob):
    local_part = alice.nio.user_id[1:].split(":")[0]

    async def make():
        answer = await alice.nio.room_create(
            visibility=RoomVisibility.public, alias=local_part, name="Town Square", topic="Everything", preset=RoomPreset.public_chat
        )
        return done(answer).room_id

    room_id = await steps.need("alice makes a public room with an alias", make)
    alias = f"#{local_part}:{alice.nio.user_id.split(':', 1)[1]}"

    async def directory():
        answer = done(await bob.nio.room_resolve_alias(alias))
        must(answer.room_id == room_id, f"the alias leads to {answer.room_id}")
        listed = done(await bob.nio.list_public_rooms(filter_generic_search_term=local_part, limit=20))
        everything = done(await bob.nio.list_public_rooms(limit=1000)) if not listed.public_rooms else listed
        found = [entry for entry in everything.public_rooms if entry.room_id == room_id]
        must(found and found[0].name == "Town Square" and found[0].num_joined_members == 1, f"listed as {found}")

    await steps.step("bob finds it by its alias and in the list of public rooms", directory)

    async def join():
        must(done(await bob.nio.join(alias)).room_id == room_id, "joined the room of the alias")
        await bob.until(lambda: room_id in bob.nio.rooms)
        await alice.until(lambda: room_id in alice.nio.rooms and bob.nio.user_id in alice.nio.rooms[room_id].users)
        seen = bob.nio.rooms[room_id]
        must(seen.name == "Town Square" and seen.topic == "Everything", f"bob sees {seen.name} / {seen.topic}")
        must(seen.user_name(alice.nio.user_id) == "Alice in Town", "bob sees alice's name in the room")

    await steps.need("bob joins by alias and sees its name, its topic and alice", join)

    async def second_alias():
        other = alias.replace("#", "#second_")
        done(await alice.nio.room_put_alias(other, room_id))
        must(done(await bob.nio.room_resolve_alias(other)).room_id == room_id, "the second alias leads there too")
        done(await alice.nio.room_delete_alias(other))
        must((await bob.nio.room_resolve_alias(other)).status_code == "M_NOT_FOUND", "and nowhere once it is deleted")

    await steps.step("alice adds a second alias and deletes it", second_alias)

    async def state():
        done(await alice.nio.room_put_state(room_id, "m.room.topic", {"topic": "Something"}))
        await bob.until(lambda: bob.nio.rooms[room_id].topic == "Something")
        content = done(await bob.nio.room_get_state_event(room_id, "m.room.topic")).content
        must(content["topic"] == "Something", f"the state event says {content}")
        keys = {(event["type"], event["state_key"]) for event in done(await bob.nio.room_get_state(room_id)).events}
        wanted = {("m.room.create", ""), ("m.room.power_levels", ""), ("m.room.topic", ""), ("m.room.member", bob.nio.user_id)}
        must(wanted <= keys, f"the whole state lacks {wanted - keys}")

    await steps.step("alice changes the topic, bob reads it from sync and from the state", state)

    async def forbidden():
        answer = await bob.nio.room_put_state(room_id, "m.room.name", {"name": "Bob's Square"})
        must(isinstance(answer, RoomPutStateError) and answer.status_code == "M_FORBIDDEN", f"bob is told {answer}")

    await steps.step("bob may not change the name", forbidden)

    async def members():
        answer = await bob.nio.joined_members(room_id)
        must(not isinstance(answer, JoinedMembersError), f"{answer}")
        must({member.user_id for member in answer.members} == {alice.nio.user_id, bob.nio.user_id}, f"{answer.members}")
        must(room_id in done(await bob.nio.joined_rooms()).rooms, "the room is among bob's rooms")

    await steps.step("both are among the joined members", members)
    return room_id


async def conversation(steps, alice, bob, room_id):
    said = []

    async def talk():
        for speaker, listener, body in [(alice, bob, "good morning"), (bob, alice, "good evening")]:
            event_id = await speaker.say(room_id, body)
            event = await listener.sees(event_id)
            must(isinstance(event, RoomMessageText) and event.body == body, f"heard {event}")
            said.append(event_id)

    await steps.need("messages go both ways", talk)

    async def transaction():
        content = {"msgtype": "m.text", "body": "only once"}
        first = done(await alice.nio.room_send(room_id, "m.room.message", content, tx_id="only-once")).event_id
        again = done(await alice.nio.room_send(room_id, "m.room.message", content, tx_id="only-once")).event_id
        must(first == again, "the same transaction gives the same event")
        last = await alice.say(room_id, "and now something else")
        await bob.sees(last)
        must([event.body for _, event in bob.seen if getattr(event, "body", "") == "only once"] == ["only once"], "bob sees it once")
        said.extend([first, last])

    await steps.step("a message sent twice with one transaction id is there once", transaction)

    async def paging():
        numbered = [await alice.say(room_id, f"page {number}") for number in range(25)]
        await bob.sees(numbered[-1])
        back, start = [], bob.syncs[-1].next_batch
        while start and not set(numbered) <= set(back):
            page = done(await bob.nio.room_messages(room_id, start, limit=10))
            must(len(page.chunk) <= 10, "a page is no longer than asked for")
            back += [event.event_id for event in page.chunk]
            start = page.end
        must([event_id for event_id in reversed(back) if event_id in numbered] == numbered, "each once and in order")
        forward = done(await bob.nio.room_messages(room_id, page.end or page.start, direction=MessageDirection.front, limit=50))
        must([event.event_id for event in forward.chunk if event.event_id in numbered], "and forwards again")

    await steps.step("bob pages back through 25 messages by tens, and forwards again", paging)

    async def context():
        answer = done(await bob.nio.room_context(room_id, said[1], limit=2))
        must(answer.event.event_id == said[1], "the event itself")
        must([event.event_id for event in answer.events_before][0] == said[0], "what was said before it")
        must(answer.events_after and answer.state, "what was said after it, and the state")
        single = done(await bob.nio.room_get_event(room_id, said[0])).event
        must(single.event_id == said[0] and single.body == "good morning", f"the single event: {single}")

    await steps.step("bob looks at one event and at its surroundings", context)

    async def relations():
        reaction = await bob.send(room_id, "m.reaction", {"m.relates_to": {"rel_type": "m.annotation", "event_id": said[0], "key": "👍"}})
        edit = await alice.say(
            room_id, "* good day", **{"m.new_content": {"msgtype": "m.text", "body": "good day"}, "m.relates_to": {"rel_type": "m.replace", "event_id": said[0]}}
        )
        answer = await bob.say(room_id, "in a thread", **{"m.relates_to": {"rel_type": "m.thread", "event_id": said[0]}})
        related = {event.event_id async for event in bob.nio.room_get_event_relations(room_id, said[0])}
        must({reaction, edit, answer} <= related, f"the relations: {related}")
        only = {event.event_id async for event in bob.nio.room_get_event_relations(room_id, said[0], RelationshipType.annotation, "m.reaction")}
        must(only == {reaction}, f"the reactions: {only}")
        threads = {event.event_id async for event in bob.nio.room_get_threads(room_id)}
        must(threads == {said[0]}, f"the threads: {threads}")

    await steps.step("reaction, edit and thread are listed as relations", relations)

    async def redaction():
        event_id = await alice.say(room_id, "a slip")
        await bob.sees(event_id)
        redaction_id = done(await alice.nio.room_redact(room_id, event_id, "slip")).event_id
        notice = await bob.sees(redaction_id)
        must(notice.redacts == event_id and notice.reason == "slip", f"the redaction: {notice}")
        status, event = await bob.request("GET", f"/_matrix/client/v3/rooms/{room_id}/event/{event_id}")
        must(status == 200 and event["content"] == {} and event["unsigned"]["redacted_because"]["event_id"] == redaction_id, f"{event}")

    await steps.step("alice redacts a message, its content is gone", redaction)

    async def typing():
        must(not isinstance(await alice.nio.room_typing(room_id, True, timeout=20_000), RoomTypingError), "typing is accepted")
        heard = []
        bob.nio.add_ephemeral_callback(lambda _, event: heard.append(event), TypingNoticeEvent)
        await bob.until(lambda: any(alice.nio.user_id in event.users for event in heard))
        await alice.nio.room_typing(room_id, False)
        await bob.until(lambda: alice.nio.user_id not in heard[-1].users)

    await steps.step("alice types and stops, bob is told of both", typing)

    async def receipts():
        event_id = await alice.say(room_id, "seen?")
        await bob.sees(event_id)
        unread = await bob.until(lambda: bob.nio.rooms[room_id].unread_notifications)
        must(unread > 0, "bob has something unread")
        heard = []
        alice.nio.add_ephemeral_callback(lambda _, event: heard.extend(event.receipts), ReceiptEvent)
        done(await bob.nio.update_receipt_marker(room_id, event_id))
        await alice.until(lambda: any(receipt.event_id == event_id and receipt.user_id == bob.nio.user_id for receipt in heard))
        must(not isinstance(await bob.nio.room_read_markers(room_id, event_id, event_id), RoomReadMarkersError), "markers are accepted")
        await bob.until(lambda: bob.nio.rooms[room_id].fully_read_marker == event_id)
        await bob.until(lambda: bob.nio.rooms[room_id].unread_notifications == 0)

    await steps.step("bob's receipt reaches alice, his marker moves and nothing is unread", receipts)


async def filters(steps, alice, bob, room_id):
    async def only_text():
        answer = await bob.nio.upload_filter(
            presence={"types": []},
            room={"timeline": {"types": ["m.room.message"], "limit": 3}, "state": {"types": ["m.room.name"]}, "ephemeral": {"types": []}},
        )
        filter_id = done(answer).filter_id
        status, sync = await bob.request("GET", f"/_matrix/client/r0/sync?filter={filter_id}")
        must(status == 200, f"{status} {sync}")
        seen = sync["rooms"]["join"][room_id]
        must({event["type"] for event in seen["timeline"]["events"]} == {"m.room.message"}, "only messages in the timeline")
        must(len(seen["timeline"]["events"]) == 3 and seen["timeline"]["limited"], "three of them, and a gap before")
        must({event["type"] for event in seen["state"]["events"]} <= {"m.room.name"}, "only the name in the state")
        must(seen["ephemeral"]["events"] == [] and sync.get("presence", {}).get("events", []) == [], "nothing ephemeral, no presence")
        page = await bob.request("GET", f"/_matrix/client/r0/rooms/{room_id}/messages?dir=b&limit=5&from={seen['timeline']['prev_batch']}")
        must(page[0] == 200 and page[1]["chunk"], "the gap is paged from prev_batch")

    await steps.step("an uploaded filter gives only messages, three at most", only_text)

    async def inline():
        wanted = {"room": {"timeline": {"not_senders": [alice.nio.user_id], "limit": 10}}}
        mine = await bob.say(room_id, "mine")
        theirs = await alice.say(room_id, "hers")
        await bob.sees(theirs)
        status, sync = await bob.request("GET", f"/_matrix/client/r0/sync?filter={quote(json.dumps(wanted))}")
        events = {event["event_id"] for event in sync["rooms"]["join"][room_id]["timeline"]["events"]}
        must(status == 200 and mine in events and theirs not in events, f"events of others only: {events}")

    await steps.step("a filter written into the request leaves alice's events out", inline)

    async def lazy():
        wanted = {"room": {"state": {"lazy_load_members": True}, "timeline": {"limit": 1}}}
        await bob.sees(await alice.say(room_id, "look who is talking"))
        status, sync = await bob.request("GET", f"/_matrix/client/r0/sync?filter={quote(json.dumps(wanted))}")
        state = sync["rooms"]["join"][room_id]["state"]["events"]
        members = {event["state_key"] for event in state if event["type"] == "m.room.member"}
        must(status == 200 and alice.nio.user_id in members, f"the member who spoke comes along: {members}")
        status, everyone = await bob.request("GET", f"/_matrix/client/r0/rooms/{room_id}/members?not_membership=leave")
        must({event["state_key"] for event in everyone["chunk"]} == {alice.nio.user_id, bob.nio.user_id}, "and all by /members")

    await steps.step("lazy loading brings the member who spoke", lazy)


async def media(steps, alice, bob, room_id):
    async def picture():
        body = png(400, 300)
        uri = await upload(alice, body, "image/png", "square.png")
        content = {"msgtype": "m.image", "body": "square.png", "url": uri, "info": {"mimetype": "image/png", "size": len(body), "w": 400, "h": 300}}
        event = await bob.sees(await alice.send(room_id, "m.room.message", content))
        file = done(await bob.nio.download(event.url))
        must(file.body == body and file.content_type == "image/png", f"bob gets it back: {len(file.body)} bytes of {file.content_type}")
        must(file.filename == "square.png", f"under its name: {file.filename}")
        server, media_id = uri.removeprefix("mxc://").split("/")
        small = done(await bob.nio.thumbnail(server, media_id, 96, 96, ResizingMethod.scale))
        must(0 < len(small.body) and small.content_type.startswith("image/"), f"a thumbnail: {small.content_type}")
        limits = done(await bob.nio.content_repository_config())
        must(limits.upload_size is None or limits.upload_size > len(body), f"the upload limit is {limits.upload_size}")

    await steps.step("alice uploads a picture, bob downloads it and a thumbnail of it", picture)


async def membership(steps, alice, bob):
    room_id = await steps.step("alice makes a room by invitation", lambda: private_room(alice, bob))
    if not room_id:
        return

    async def membership_of_bob():
        return done(await alice.nio.room_get_state_event(room_id, "m.room.member", bob.nio.user_id)).content["membership"]

    async def leave_and_return():
        await bob.until(lambda: room_id in bob.nio.invited_rooms)
        done(await bob.nio.join(room_id))
        await bob.until(lambda: room_id in bob.nio.rooms)
        done(await bob.nio.room_leave(room_id))
        must(await membership_of_bob() == "leave", "bob has left")
        done(await alice.nio.room_invite(room_id, bob.nio.user_id))
        done(await bob.nio.join(room_id))
        must(await membership_of_bob() == "join", "bob is back")

    await steps.step("bob joins, leaves, is invited again and returns", leave_and_return)

    async def kick_and_ban():
        done(await alice.nio.room_kick(room_id, bob.nio.user_id, "noise"))
        must(await membership_of_bob() == "leave", "bob is out")
        done(await alice.nio.room_ban(room_id, bob.nio.user_id, "still noise"))
        must(await membership_of_bob() == "ban", "bob is banned")
        refused = await bob.nio.join(room_id)
        must(refused.transport_response.status == 403, f"and may not come in: {refused}")
        done(await alice.nio.room_unban(room_id, bob.nio.user_id))
        must(await membership_of_bob() == "leave", "bob is free again")
        answer = await bob.nio.room_forget(room_id)
        must(getattr(answer, "status_code", None) is None, f"bob forgets the room: {answer}")

    await steps.step("alice kicks, bans and unbans bob, who then forgets the room", kick_and_ban)

    async def knock():
        done(await alice.nio.room_enable_knocking(room_id))
        done(await bob.nio.room_knock(room_id, "may I come in?"))
        must(await membership_of_bob() == "knock", "bob knocks")
        done(await alice.nio.room_invite(room_id, bob.nio.user_id))
        done(await bob.nio.join(room_id))
        must(await membership_of_bob() == "join", "and is let in")

    await steps.step("bob knocks and is let in", knock)


async def private_room(alice, bob):
    return done(await alice.nio.room_create(name="Back Room", preset=RoomPreset.private_chat, invite=[bob.nio.user_id])).room_id


async def devices(steps, bob, bob_phone, password):
    async def rename():
        done(await bob.nio.update_device(bob_phone.nio.device_id, {"display_name": "bob's old phone"}))
        names = {device.id: device.display_name for device in done(await bob.nio.devices()).devices}
        must(names[bob_phone.nio.device_id] == "bob's old phone" and bob.nio.device_id in names, f"the devices: {names}")

    await steps.step("bob renames his phone", rename)

    async def delete():
        asked = await bob.nio.delete_devices([bob_phone.nio.device_id])
        must(isinstance(asked, DeleteDevicesAuthResponse), f"the server asks for the password: {asked}")
        auth = {"type": "m.login.password", "session": asked.session, "user": bob.nio.user_id, "password": password}
        auth["identifier"] = {"type": "m.id.user", "user": bob.nio.user_id}
        done(await bob.nio.delete_devices([bob_phone.nio.device_id], auth))
        answer = await bob_phone.nio.whoami()
        must(isinstance(answer, WhoamiError) and answer.status_code == "M_UNKNOWN_TOKEN", f"the phone is told {answer}")

    await steps.step("bob deletes the phone with his password, and its token is dead", delete)


async def logout(steps, alice, bob):
    async def one():
        token = bob.nio.access_token
        done(await bob.nio.logout())
        bob.nio.access_token = token
        answer = await bob.nio.whoami()
        must(isinstance(answer, WhoamiError) and answer.status_code == "M_UNKNOWN_TOKEN", f"after logout: {answer}")

    await steps.step("bob logs out and his token is dead", one)

    async def everywhere():
        token = alice.nio.access_token
        done(await alice.nio.logout(all_devices=True))
        alice.nio.access_token = token
        answer = await alice.nio.whoami()
        must(isinstance(answer, WhoamiError) and answer.status_code == "M_UNKNOWN_TOKEN", f"after logout: {answer}")

    await steps.step("alice logs out everywhere", everywhere)
