-- What Prometheus asks: a role that reads statistics and two views, and no table.
-- depends: 0004.no_updates

DO $$
BEGIN
    -- Roles belong to the whole cluster, not to this database: it may be there already.
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'lab_monitor') THEN
        CREATE ROLE lab_monitor LOGIN;
    END IF;
END
$$;
GRANT pg_monitor TO lab_monitor;
GRANT USAGE ON SCHEMA public TO lab_monitor;

-- From the server's own counters: no table is read. `both`: a table in which both engines write.
CREATE VIEW table_activity AS
SELECT written.engine, stat.relname::text AS "table", stat.n_tup_ins AS rows_inserted
FROM pg_stat_user_tables AS stat
JOIN (VALUES ('spark', 'crypto_prices_realtime'), ('spark', 'candles_1m_spark'),
             ('flink', 'crypto_prices_flink'), ('flink', 'candles_1m_flink'),
             ('both', 'rejected_messages')) AS written (engine, relname)
    ON stat.schemaname = 'public' AND stat.relname = written.relname;
COMMENT ON VIEW table_activity IS 'Rows inserted into each table since its statistics began, deleted ones included';

-- One look into the index per symbol, however long the tables are.
CREATE VIEW engine_newest AS
WITH RECURSIVE spark AS (
    (SELECT symbol, timestamp FROM crypto_prices_realtime ORDER BY symbol, timestamp DESC LIMIT 1)
    UNION ALL
    SELECT next.symbol, next.timestamp FROM spark CROSS JOIN LATERAL (
        SELECT symbol, timestamp FROM crypto_prices_realtime WHERE symbol > spark.symbol
        ORDER BY symbol, timestamp DESC LIMIT 1
    ) AS next
), flink AS (
    (SELECT symbol, timestamp FROM crypto_prices_flink ORDER BY symbol, timestamp DESC LIMIT 1)
    UNION ALL
    SELECT next.symbol, next.timestamp FROM flink CROSS JOIN LATERAL (
        SELECT symbol, timestamp FROM crypto_prices_flink WHERE symbol > flink.symbol
        ORDER BY symbol, timestamp DESC LIMIT 1
    ) AS next
)
SELECT 'spark' AS engine, max(timestamp) / 1000.0 AS newest_event_timestamp_seconds FROM spark
HAVING max(timestamp) IS NOT NULL
UNION ALL
SELECT 'flink' AS engine, max(timestamp) / 1000.0 AS newest_event_timestamp_seconds FROM flink
HAVING max(timestamp) IS NOT NULL;
COMMENT ON VIEW engine_newest IS 'Event time of the newest row of each engine, epoch seconds; no row for an engine without rows';

GRANT SELECT ON table_activity, engine_newest TO lab_monitor;
