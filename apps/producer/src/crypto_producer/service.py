"""Puts source, spool and delivery together, and takes them apart again in the right order."""

from __future__ import annotations

import logging
import signal
import threading
import time

from crypto_producer.config import Config
from crypto_producer.delivery import Delivery, in_flight_limit
from crypto_producer.metrics import Metrics
from crypto_producer.sources.base import Context, Intake, Source, SourceError
from crypto_producer.sources.coinbase_rest import CoinbaseRest
from crypto_producer.sources.coinbase_ws import CoinbaseWs
from crypto_producer.sources.tape import TapeSource
from crypto_producer.spool import Spool
from crypto_producer.systemd import Notifier, Progress, notify

log = logging.getLogger(__name__)

_SOURCE_STOPS_WITHIN_S = 10.0


def make_source(config: Config) -> Source:
    """The source that is configured."""
    if config.source.kind == "coinbase_rest":
        return CoinbaseRest(config.source.coinbase_rest, config.symbols)
    if config.source.kind == "coinbase_ws":
        return CoinbaseWs(config.source.coinbase_ws, config.symbols)
    if config.source.tape is None:
        raise ValueError("the configuration was not validated")
    return TapeSource(config.source.tape, config.symbols)


class Service:
    """One producer process."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._stop = threading.Event()
        self._failure: BaseException | None = None

    def run(self) -> int:
        """Run until SIGTERM or SIGINT, or the end of a tape: the exit code.

        Readiness means that the spool stands and all loops run: from then on nothing that is read gets lost, whether
        or not Kafka and the source can be reached yet. Raises SpoolError, OSError (the metrics' port is taken).
        """
        config = self._config
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stop.set())
        with Spool(
            config.spool.dir,
            max_events=config.spool.max_events,
            max_bytes=config.spool.max_bytes,
            durability=config.spool.durability,
            protected_events=in_flight_limit(config.kafka, config.spool.max_events),
        ) as spool:
            return self._run(spool)

    def _run(self, spool: Spool) -> int:
        config = self._config
        total = spool.ledger().total
        log.info(
            "spool %s: %d accepted, %d acknowledged, %d dropped, %d pending",
            config.spool.dir, total.accepted, total.acknowledged, total.dropped, total.pending,
        )  # fmt: skip
        if not spool.closed_cleanly:
            log.warning("the spool was not closed: what a crash had torn is cut, what is pending is looked up in Kafka")
        metrics, progress = Metrics(), Progress()
        if config.metrics.port:
            try:
                metrics.serve(config.metrics.host, config.metrics.port, spool)
            except OSError as error:
                where = f"metrics.host, metrics.port: {config.metrics.host}:{config.metrics.port}"
                raise OSError(f"{where} cannot be listened on: {error.strerror or error}") from error
        delivery = Delivery(config.kafka, spool, metrics, progress)
        source = make_source(config)
        intake = Intake(
            spool,
            metrics,
            source=source.name,
            when_full=config.spool.when_full,
            on_append=delivery.wake,
            touch=lambda: progress.touch(source.name),
            stop=self._stop,
        )
        context = Context(
            symbols=config.symbols,
            namespace=config.event_id_namespace,
            intake=intake,
            spool=spool,
            metrics=metrics,
            progress=progress,
            stop=self._stop,
            wait_acknowledged=lambda seqs, timeout_s: delivery.wait_acknowledged(seqs, timeout_s, self._stop),
        )

        def status() -> str:
            now = spool.ledger().total
            full = " SPOOL FULL;" if intake.full else ""
            return (
                f"{full}accepted {now.accepted}, acknowledged {now.acknowledged}, dropped {now.dropped}, "
                f"waiting {spool.events} ({spool.bytes} bytes); "
                f"Kafka {delivery.state}; {source.name} {context.state.text}"
            ).strip()

        notifier = Notifier(progress, status)
        thread = threading.Thread(target=self._read, args=(source, context), name=source.name, daemon=True)
        delivery.start()
        thread.start()
        notify("READY=1")
        notifier.start()
        log.info("ready: %s -> %s", source.name, config.kafka.topic)
        while thread.is_alive() and delivery.failure is None:
            thread.join(0.25)
        ended_by_itself = not self._stop.is_set() and self._failure is None and delivery.failure is None
        if ended_by_itself:
            log.info("the source is at its end; delivering what is left")
            while not self._stop.is_set() and delivery.failure is None and delivery.drain(0.5):
                pass
        self._shut_down(delivery, thread, progress, spool)
        notifier.close()
        return 1 if self._failure is not None or delivery.failure is not None else 0

    def _read(self, source: Source, context: Context) -> None:
        try:
            source.run(context)
        except SourceError as error:
            self._failure = error
            log.error("source %s failed: %s", source.name, error)
        except BaseException as error:
            self._failure = error
            log.exception("source %s failed", source.name)
        finally:
            context.progress.done(source.name)

    def _shut_down(self, delivery: Delivery, thread: threading.Thread, progress: Progress, spool: Spool) -> None:
        budget_s = self._config.service.shutdown_timeout_s
        begun_s = time.monotonic()
        self._stop.set()
        notify(f"STOPPING=1\nSTATUS=stopping; {spool.events} events to deliver")
        thread.join(min(_SOURCE_STOPS_WITHIN_S, budget_s))
        if thread.is_alive():
            log.warning("the source did not stop in time")
        left = delivery.drain(max(0.0, budget_s - (time.monotonic() - begun_s)))
        delivery.close()
        progress.done(thread.name)
        left = spool.events if left else left
        total = spool.ledger().total
        if left:
            log.warning("stopped; %d events remain in the spool and are delivered after the next start", left)
        log.info("stopped: %d accepted, %d acknowledged, %d dropped, %d pending",
                 total.accepted, total.acknowledged, total.dropped, total.pending)  # fmt: skip
