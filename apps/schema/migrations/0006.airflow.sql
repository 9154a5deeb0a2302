-- What Airflow's DAGs may do: read the pipeline's tables, keep what their checks found, and let old rows go.
-- depends: 0005.monitoring

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'airflow_dags') THEN
        CREATE ROLE airflow_dags LOGIN;
    END IF;
END
$$;

CREATE TABLE data_quality_results (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    checked_at  timestamptz      NOT NULL DEFAULT now(),
    run_id      text             NOT NULL,
    check_name  text             NOT NULL,
    -- What was looked at: an engine, or the topic.
    subject     text             NOT NULL,
    value       double precision,
    limit_value double precision NOT NULL,
    passed      boolean          NOT NULL,
    detail      text             NOT NULL
);
COMMENT ON TABLE data_quality_results IS 'What the DAG data_quality measured, a row for each check and subject';
COMMENT ON COLUMN data_quality_results.value IS 'NULL where there was nothing to measure';
CREATE INDEX data_quality_results_checked_at ON data_quality_results (checked_at);

-- Deletes one batch of rows that are older than a day at least, and returns how many. The role needs no DELETE on any table,
-- and cannot delete what is new. Rows that somebody else holds are left for the next batch; nobody waits for this for long.
-- By event time, for which there is an index, and by the time of production, so that a replay of old trades is kept.
CREATE FUNCTION delete_expired(from_table text, of_symbol text, older_than interval, batch integer) RETURNS integer
LANGUAGE plpgsql STRICT SECURITY DEFINER SET search_path = public, pg_temp SET lock_timeout = '1s' AS $$
DECLARE
    cutoff    timestamptz := now() - older_than;
    cutoff_ms bigint := floor(extract(epoch FROM cutoff) * 1000);
    deleted   integer;
BEGIN
    IF older_than < interval '1 day' THEN
        RAISE EXCEPTION 'rows of less than a day are kept, % was asked for', older_than;
    END IF;
    IF batch NOT BETWEEN 1 AND 10000 THEN
        RAISE EXCEPTION 'a batch is 1 to 10000 rows, % were asked for', batch;
    END IF;
    CASE
    WHEN from_table IN ('crypto_prices_realtime', 'crypto_prices_flink') THEN
        EXECUTE format(
            'DELETE FROM %1$I WHERE event_id IN ('
            ' SELECT event_id FROM %1$I WHERE symbol = $1 AND timestamp < $2 AND produced_at < $2 * 1000'
            ' ORDER BY timestamp LIMIT $3 FOR UPDATE SKIP LOCKED)', from_table) USING of_symbol, cutoff_ms, batch;
    WHEN from_table IN ('candles_1m_spark', 'candles_1m_flink') THEN
        EXECUTE format(
            'DELETE FROM %1$I WHERE (symbol, window_start) IN ('
            ' SELECT symbol, window_start FROM %1$I WHERE symbol = $1 AND window_start < $2'
            ' ORDER BY window_start LIMIT $3 FOR UPDATE SKIP LOCKED)', from_table) USING of_symbol, cutoff_ms, batch;
    WHEN from_table = 'rejected_messages' THEN
        DELETE FROM rejected_messages WHERE (engine, kafka_partition, kafka_offset, kafka_timestamp) IN (
            SELECT engine, kafka_partition, kafka_offset, kafka_timestamp FROM rejected_messages
            WHERE kafka_timestamp < cutoff_ms LIMIT batch FOR UPDATE SKIP LOCKED);
    WHEN from_table = 'data_quality_results' THEN
        DELETE FROM data_quality_results WHERE id IN (
            SELECT id FROM data_quality_results WHERE checked_at < cutoff
            ORDER BY checked_at LIMIT batch FOR UPDATE SKIP LOCKED);
    ELSE
        RAISE EXCEPTION 'nothing is deleted from %', from_table;
    END CASE;
    GET DIAGNOSTICS deleted = ROW_COUNT;
    RETURN deleted;
END
$$;
COMMENT ON FUNCTION delete_expired IS 'One batch of the retention; of_symbol counts for prices and candles only';

GRANT USAGE ON SCHEMA public TO airflow_dags;
GRANT SELECT ON crypto_prices_realtime, crypto_prices_flink, candles_1m_spark, candles_1m_flink, rejected_messages,
    event_latency TO airflow_dags;
GRANT SELECT, INSERT ON data_quality_results TO airflow_dags;
GRANT SELECT ON data_quality_results TO lab_reader;
REVOKE ALL ON FUNCTION delete_expired FROM PUBLIC;
GRANT EXECUTE ON FUNCTION delete_expired TO airflow_dags;
