"""What the options want kept on disk (I2I-2, OUT-5, GRID-1, IMG-1, CC-5): finished pictures, copied to their folders.

What is to be saved is written down before its job is accepted, and struck out when all is saved; a server that finds
such an entry at its start goes on with it. The name of each file is written down before the file, and no other file is
ever overwritten.
So a picture is saved once, also if the server is killed between a job's end and the copy, or between two files; only
one that somebody took away again in the meantime is saved anew.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from overpaint.errors import OverpaintError
from overpaint.files.output import OutputKind, save_source_pictures
from overpaint.service.doors.webui.saved_files import Item, items_of, place_for, save_at
from overpaint.service.jobs import Record
from overpaint.service.logs import LOGGER, line
from overpaint.service.ports import Desk, Full, Store
from overpaint.service.requests import loaded_request
from overpaint.settings import Settings

WISHES = "sdapi_saves"  # in the store: job -> what of it is to be saved, and where what is saved already lies

log = logging.getLogger(LOGGER)


@dataclass(frozen=True)
class SavingOptions:
    """What of one job is to be saved."""

    kind: OutputKind
    pictures: bool  # save_images
    sources: bool  # the option save_init_img

    def __bool__(self) -> bool:
        return self.pictures or self.sources


class Saver:
    """Saves what jobs of this API make, whether their clients are still there or not."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._noting, self._saving = threading.Lock(), threading.Lock()
        self._following: dict[str, asyncio.Task[None]] = {}

    @property
    def _store(self) -> Store:
        return self._desk.store

    # -- from the event loop -------------------------------------------------------------------------------------

    async def promise(self, job_id: str, saving: SavingOptions) -> None:
        """Before the job is accepted: from now on what is wished for happens, if the job does."""
        if saving:
            await asyncio.to_thread(self._note, job_id, {**vars(saving), "places": {}})

    async def withdraw(self, job_id: str) -> None:
        """The job was not accepted, or there is nothing left to do."""
        await asyncio.to_thread(self._note, job_id, None)

    def follow(self, job_id: str) -> asyncio.Task[None]:
        """Save when the job has ended; the task ends when that is done."""
        task = self._following.get(job_id)
        if task is None:
            task = self._following[job_id] = asyncio.create_task(self._follow(job_id))
            task.add_done_callback(lambda done: self._ended(job_id, done))
        return task

    async def resume(self) -> None:
        """At a server's start: what an earlier one could not do."""
        for job_id in await asyncio.to_thread(self._wishes):
            if await self._desk.get(job_id) is None:  # it was never accepted
                await self.withdraw(job_id)
            else:
                self.follow(job_id)

    async def _follow(self, job_id: str) -> None:
        record = await self._desk.wait(job_id)
        await asyncio.to_thread(self._save, record)

    def _ended(self, job_id: str, task: asyncio.Task[None]) -> None:
        self._following.pop(job_id, None)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, Full):  # full: the server stops
            log.warning(line("not-saved", job=job_id, reason=error))

    # -- in threads ----------------------------------------------------------------------------------------------

    def _save(self, record: Record) -> None:
        """Everything of one ended job. One job at a time, so that two do not choose the same names."""
        with self._saving:
            saving = self._wishes().get(record.id)
            if saving is None:
                return
            settings = Settings.from_json(record.job.settings)
            if saving["sources"] and record.attempts:
                self._save_sources(record, settings)
            if saving["pictures"] and not record.gone:
                for item in items_of(self._store, record, settings, saving["kind"]):
                    self._save_item(record.id, item, settings, saving["places"])
            self._note(record.id, None)

    def _save_sources(self, record: Record, settings: Settings) -> None:
        try:
            request = loaded_request(record.job.request, self._store.picture)
            save_source_pictures(request.images, settings)
        except OverpaintError as error:  # they may have been kept long enough, after a long time without a server
            log.warning(line("sources-not-saved", job=record.id, reason=error))

    def _save_item(self, job_id: str, item: Item, settings: Settings, places: Mapping[str, str]) -> None:
        known = places.get(item.key)
        path = place_for(item, settings) if known is None else Path(known)
        if known is None:
            self._note_place(job_id, item.key, path)
        save_at(path, item, settings, may_be_there=known is not None)

    def _wishes(self) -> dict[str, Any]:
        return dict(self._store.option(WISHES) or {})

    def _note(self, job_id: str, saving: Mapping[str, Any] | None) -> None:
        with self._noting:
            others = {name: each for name, each in self._wishes().items() if name != job_id}
            self._store.set_option(WISHES, others if saving is None else {**others, job_id: saving})

    def _note_place(self, job_id: str, key: str, path: Path) -> None:
        with self._noting:
            wishes = self._wishes()
            saving = wishes[job_id]
            places = {**saving["places"], key: str(path)}
            self._store.set_option(WISHES, {**wishes, job_id: {**saving, "places": places}})
