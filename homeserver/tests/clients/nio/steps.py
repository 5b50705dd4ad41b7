"""The steps of a story: each is printed as it passes or fails, and counted. Every step is bounded in time."""

import asyncio
import os
import sys
import time
import traceback

# The longest a step may take; generous, for CI machines are slow and shared.
STEP_SECONDS_MAX = float(os.environ.get("WAIT_SECONDS_MAX", "60"))


class CannotGoOn(Exception):
    """A step others build on has failed: the rest of the story cannot be told."""


def must(holds, what):
    if not holds:
        raise AssertionError(what)


class Steps:
    def __init__(self, title):
        self.title, self.passed, self.failed, self.whole = title, 0, 0, True
        print(f"# {title}", flush=True)

    async def step(self, name, run):
        """Runs one step. A failure is printed and counted, and the story goes on."""
        began = time.monotonic()
        try:
            result = await asyncio.wait_for(run(), STEP_SECONDS_MAX)
        except Exception as error:  # whatever went wrong, it is this step that failed
            self.failed += 1
            where = traceback.extract_tb(error.__traceback__)[-1]
            print(f"not ok - {name}\n    {type(error).__name__}: {error}\n    {os.path.basename(where.filename)}:{where.lineno}", flush=True)
            return None
        self.passed += 1
        print(f"ok - {name} ({(time.monotonic() - began) * 1000:.0f} ms)", flush=True)
        return result

    async def need(self, name, run):
        """Runs a step that the later ones need; without it the story ends here."""
        failed_before = self.failed
        result = await self.step(name, run)
        if self.failed > failed_before:
            raise CannotGoOn(name)
        return result

    def end(self):
        told = "" if self.whole else ", not told to the end"
        print(f"# {self.title}: {self.passed} passed, {self.failed} failed{told}", flush=True)
        sys.exit(0 if self.whole and self.failed == 0 else 1)
