"""Predicts for many requests at once: inputs are encoded in threads, and those that wait go in one batch."""

import asyncio
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from src.predict.inputs import Item
from src.predict.predictor import Predictor, finite

CHUNK = 16  # inputs of a request that are encoded in one go: then it is another request's turn
LARGEST = 64  # inputs that are computed at once


class Batches:
    """What predicts without ever holding up the event loop.

    While a batch is computed, inputs of other requests arrive and wait; all of them are the next batch. With
    one client nobody waits, and with many the batches grow.

    Args:
        predictor: Ready to predict.
        threads: That may encode at once; 0: as many as there are cores.
    """

    def __init__(self, predictor: Predictor, threads: int = 0) -> None:
        self.predictor = predictor
        self.encoding = ThreadPoolExecutor(threads or os.cpu_count(), "encode")
        self.computing = ThreadPoolExecutor(1, "compute")
        self.waiting: deque[tuple[np.ndarray, asyncio.Future[np.ndarray]]] = deque()
        self.worker: asyncio.Task[None] | None = None

    async def predict(self, items: list[Item]) -> list[np.ndarray | str]:
        """Returns the output of each input, (units,), or why it has none."""
        loop = asyncio.get_running_loop()
        outputs: list[np.ndarray | str] = []
        for start in range(0, len(items), CHUNK):
            encoded = await loop.run_in_executor(self.encoding, self._encode, items[start : start + CHUNK])
            good = [array for array in encoded if not isinstance(array, str)]
            found = iter(await self._compute(np.stack(good)) if good else [])
            outputs += [array if isinstance(array, str) else finite(next(found)) for array in encoded]
        return outputs

    def _encode(self, items: list[Item]) -> list[np.ndarray | str]:
        return [self.predictor.attempt(item) for item in items]

    async def _compute(self, arrays: np.ndarray) -> np.ndarray:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[np.ndarray] = loop.create_future()
        self.waiting.append((arrays, future))
        if self.worker is None or self.worker.done():
            self.worker = loop.create_task(self._work())
        return await future

    async def _work(self) -> None:
        """Computes batches until nobody waits."""
        loop = asyncio.get_running_loop()
        while batch := self._take():
            arrays = [array for array, _ in batch]
            try:
                outputs = await loop.run_in_executor(self.computing, self._run, arrays)
            except Exception as error:  # belongs to those who wait, not to this task
                _settle(batch, error)
                continue
            ends = np.cumsum([len(array) for array in arrays])[:-1]
            for (_, future), output in zip(batch, np.split(outputs, ends), strict=True):
                if not future.done():
                    future.set_result(output)

    def _run(self, arrays: list[np.ndarray]) -> np.ndarray:
        return self.predictor.run(np.concatenate(arrays))

    def _take(self) -> list[tuple[np.ndarray, asyncio.Future[np.ndarray]]]:
        """Returns those who have waited longest, less those who have gone."""
        batch, count = [], 0
        while self.waiting and count < LARGEST:
            arrays, future = self.waiting.popleft()
            if not future.done():
                batch.append((arrays, future))
                count += len(arrays)
        return batch


def _settle(batch: list[tuple[np.ndarray, asyncio.Future[np.ndarray]]], error: Exception) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)
