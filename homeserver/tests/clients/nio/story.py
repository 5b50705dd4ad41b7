"""The ways of older clients, told with matrix-nio: one sync after another, r0-shaped requests, to-device verification.

    BASE_URL=http://localhost:8008 REGISTRATION_SHARED_SECRET=… python story.py

Prints a line for each step and a true count; ends with 0 only if every step passed.
WAIT_SECONDS_MAX bounds each step (60).
"""

import asyncio
import logging
import secrets

import encrypted
import plain
from device import Device, done, environment, register_by_secret
from steps import CannotGoOn, Steps, must

# nio logs every response it cannot parse; the steps below say what matters of it
logging.getLogger("nio").setLevel(logging.CRITICAL)


async def main():
    base_url = environment("BASE_URL").rstrip("/")
    secret = environment("REGISTRATION_SHARED_SECRET")
    steps = Steps(f"nio story on {base_url}")
    devices = []

    def fresh(name):
        return f"{name}_{secrets.token_hex(4)}"

    password = fresh("secret")

    async def register_alice():
        device = Device(base_url, fresh("alice"))
        devices.append(device)
        answer = done(await device.nio.register(device.nio.user, password, "alice's desk"))
        must(answer.user_id.startswith(f"@{device.nio.user}:"), f"registered as {answer.user_id}")
        await device.sync(full_state=True)
        return device

    async def login(name, user_id, by=None):
        device = Device(base_url, by or user_id)
        devices.append(device)
        flows = done(await device.nio.login_info()).flows
        must("m.login.password" in flows, f"password login is offered: {flows}")
        answer = done(await device.nio.login(password, device_name=name))
        must(answer.user_id == user_id, f"logged in as {answer.user_id}")
        await device.sync(full_state=True)
        return device

    try:
        alice = await steps.need("alice registers in one request with m.login.dummy and is logged in", register_alice)
        bob_id = await steps.need("bob is registered with the shared secret", lambda: asyncio.to_thread(register_by_secret, base_url, secret, fresh("bob"), password))
        bob = await steps.need("bob logs in with his password", lambda: login("bob's desk", bob_id))
        bob_phone = await steps.need("bob logs in on his phone, by user name alone", lambda: login("bob's phone", bob_id, by=bob_id[1:].split(":")[0]))
        await plain.accounts(steps, alice, bob)
        room_id = await plain.room(steps, alice, bob)
        await plain.conversation(steps, alice, bob, room_id)
        await plain.filters(steps, alice, bob, room_id)
        await plain.media(steps, alice, bob, room_id)
        await plain.membership(steps, alice, bob)
        await encrypted.conversation(steps, alice, bob, bob_phone)
        await encrypted.verification(steps, alice, bob)
        await plain.devices(steps, bob, bob_phone, password)
        await plain.logout(steps, alice, bob)
    except CannotGoOn as missing:
        steps.whole = False
        print(f"# the rest needs this step: {missing}")
    finally:
        for device in devices:
            await device.close()
    steps.end()


asyncio.run(main())
