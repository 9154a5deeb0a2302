-- What people ask the lab: latency by one definition for both engines, and whether the engines agree.
-- depends: 0002.tables

-- Latency = commit time of the row (track_commit_timestamp) - produced_at: the same clock and the same end point for
-- both engines, with no cooperation from either. NULL for rows older than the last switch of the setting.
CREATE VIEW event_latency AS
SELECT 'spark' AS engine, event_id, symbol, produced_at, committed_at,
       extract(epoch FROM committed_at) * 1000 - produced_at / 1000.0 AS latency_ms
FROM (SELECT *, pg_xact_commit_timestamp(xmin) AS committed_at FROM crypto_prices_realtime) AS spark
UNION ALL
SELECT 'flink' AS engine, event_id, symbol, produced_at, committed_at,
       extract(epoch FROM committed_at) * 1000 - produced_at / 1000.0 AS latency_ms
FROM (SELECT *, pg_xact_commit_timestamp(xmin) AS committed_at FROM crypto_prices_flink) AS flink;
COMMENT ON VIEW event_latency IS 'Milliseconds from produced_at to the commit of the row, per engine and event';

CREATE VIEW engine_latency AS
SELECT engine,
       count(*) AS events,
       count(*) FILTER (WHERE latency_ms < 0) AS negative,
       percentile_cont(0.50) WITHIN GROUP (ORDER BY latency_ms) AS p50_ms,
       percentile_cont(0.95) WITHIN GROUP (ORDER BY latency_ms) AS p95_ms,
       percentile_cont(0.99) WITHIN GROUP (ORDER BY latency_ms) AS p99_ms,
       max(latency_ms) AS max_ms
FROM event_latency
WHERE latency_ms IS NOT NULL
GROUP BY engine;
COMMENT ON VIEW engine_latency IS 'Latency percentiles per engine over all rows';

CREATE VIEW candle_differences AS
SELECT symbol, window_start, spark.event_count AS spark_count, flink.event_count AS flink_count,
       spark.open AS spark_open, flink.open AS flink_open, spark.high AS spark_high, flink.high AS flink_high,
       spark.low AS spark_low, flink.low AS flink_low, spark.close AS spark_close, flink.close AS flink_close
FROM candles_1m_spark AS spark
FULL JOIN candles_1m_flink AS flink USING (symbol, window_start)
WHERE (spark.open, spark.high, spark.low, spark.close, spark.event_count)
      IS DISTINCT FROM (flink.open, flink.high, flink.low, flink.close, flink.event_count);
COMMENT ON VIEW candle_differences IS
    'Candles in which the engines differ, or that only one of them has written (yet)';

GRANT SELECT ON event_latency, engine_latency, candle_differences TO lab_reader;
